"""What python programs use most: subprocess, threading, signal, json, sqlite3, sockets, temporary files."""
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import queue
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import zlib


def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def with_subprocess():
    result = subprocess.run(['sort', '-n'], input='3\n1\n2\n', capture_output=True, text=True, check=True)
    print('sorted', result.stdout.split())
    first = subprocess.Popen(['seq', '1', '1000'], stdout=subprocess.PIPE)
    second = subprocess.Popen(['tail', '-n', '1'], stdin=first.stdout, stdout=subprocess.PIPE)
    first.stdout.close()
    print('piped', second.communicate()[0].decode().strip(), first.wait())
    print('status', subprocess.call(['sh', '-c', 'exit 9']), subprocess.call(['sh', '-c', 'kill -9 $$']))
    try:
        subprocess.run(['sleep', '100'], timeout=0.1, check=False)
    except subprocess.TimeoutExpired:
        print('timed out')
    try:
        subprocess.run(['/no/such/program'], check=False)
    except FileNotFoundError as error:
        print('not found', error.errno)


def with_threads():
    work, results = queue.Queue(), []
    lock = threading.Lock()

    def worker():
        while True:
            item = work.get()
            if item is None:
                return
            value = zlib.crc32(str(item).encode() * 50)
            with lock:
                results.append((item, value))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for item in range(500):
        work.put(item)
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.join()
    print('threads', len(results), digest(sorted(results)))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        print('pool', sum(pool.map(lambda n: n * n, range(200))))


def with_signals():
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    # Again and again: a pause() that begins after a single alarm would wait for ever, natively too.
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    print('signals', seen.count(signal.SIGUSR1), signal.SIGALRM in seen)


def with_processes():
    with multiprocessing.get_context('fork').Pool(2) as pool:
        print('processes', digest(pool.map(digest, range(40))))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b'from the child')
        os._exit(4)
    print(os.read(reader, 100).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def with_files_and_data():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'data.json')
        data = {str(n): [n, n * n, {'odd': n % 2 == 1}] for n in range(2000)}
        with open(path, 'w') as file:
            json.dump(data, file)
        with open(path) as file:
            print('json', json.load(file) == data, os.path.getsize(path))
        database = sqlite3.connect(os.path.join(folder, 'data.db'))
        database.execute('create table squares (n integer primary key, square integer)')
        database.executemany('insert into squares values (?, ?)', ((n, n * n) for n in range(5000)))
        database.commit()
        print('sqlite', database.execute('select sum(square) from squares where n % 3 = 0').fetchone()[0])
        database.close()
        print('files', sorted(os.listdir(folder)))


def with_sockets():
    server = socket.create_server(('127.0.0.1', 0))

    def serve():
        connection, _ = server.accept()
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data.upper())

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(server.getsockname()) as client:
        client.sendall(b'hello server')
        ready, _, _ = select.select([client], [], [], 30)
        print('socket', client.recv(1000).decode(), len(ready))
    thread.join()
    server.close()


def main():
    for part in (with_subprocess, with_threads, with_signals, with_processes, with_files_and_data, with_sockets):
        part()
        sys.stdout.flush()
    total = 0
    for number in range(1500000):
        total = (total * 31 + number) % 1000003
    print('computed', total)


main()
sys.exit(3)
