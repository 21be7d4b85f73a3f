#!/usr/bin/env python3
"""Runs suites that others wrote, natively and under libmosix, and tabulates what differs.

  run_suites.py [OPTION]... [SUITE[:CASE,...]]...      suites: cpython gostd openposix stress-ng (all of
  them without)

A case is one command of a suite. It passes with exit status 0; what does not pass natively, on this machine, is not
run elsewhere. Modes, on node1 of a lab of three nodes:
  native   without mosix: the specification
  home     mosrun -h: adopted, at home
  away     mosrun --require -r node2
  storm    as away, while the processes of the whole tree are moved at random (--interval, --seed)

Three kinds of pass away from home are told apart by `mosrun --report`: away throughout; brought home, because the node
could not do something; home only.

Options: --modes A,B,... (native,home,away,storm)   --limit SECONDS (120, for a run)
         --interval MS (60, of moves)   --seed N (1)   --batch N runs in one lab (20)
         --results DIR (./conformance: a line of JSON for each run; runs that are there already are not made again)
         --again (they are)   --table FILE (Markdown of all results; alone, with --no-run: from what is there)
The last line is "tally: N passed, N failed, N skipped". Exit status: 0, 1 if a case that passes natively failed
elsewhere, 77 if there was nothing to run.
"""
import argparse
import collections
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import lab_client  # noqa: E402
import run_matrix  # noqa: E402

WRAPPERS = {
    'native': [],
    'home': ['mosrun', '--report', '-h'],
    'away': ['mosrun', '--report', '--require', '-r', 'node2'],
    'storm': ['mosrun', '--report', '--require', '-r', 'node2'],
}
PYTHON = '/usr/bin/python3.11'


class Suite:
    """Its cases, by name, and the versions of what is run."""

    def __init__(self, needs, cases, version, not_applicable=(), folders=dict):
        self.needs, self._cases, self._version, self.not_applicable = needs, cases, version, not_applicable
        self.folders = folders  # where a case is run, if not in an empty folder

    def missing(self):
        return [need for need in self.needs if not os.path.exists(need) and shutil.which(need) is None]

    def cases(self):
        return self._cases()

    def version(self):
        return output_of(*self._version).split('\n', 1)[0]


def output_of(*words):
    return subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout.strip()


# What reaches the machine or its kernel as a whole, fills its memory, floods its network, or makes calls at random.
LEFT_OUT = frozenset("""
    apparmor bind-mount binderfs chattr clock cpu-online daemon dev efivar fanotify gpu hrtimers idle-page inode-flags
    io-uring ioport ipsec-mb klog kvm landlock loop memhotplug module netdev numa pci physpage quota ramfs rawdev reboot
    rtc smi softlockup swap sysfs tmpfs tun umount unshare verity watchdog
    bigheap cyclic mlockmany mmapfork mmaphuge oom-pipe pageswap resources
    dccp icmp-flood netlink-proc netlink-task ping-sock rawpkt rawsock rawudp sctp sockdiag udp-flood
    bad-ioctl far-branch misaligned opcode priv-instr procfs sysinval uprobe x86syscall
    """.split())


def stress_ng_cases():
    names = [name for name in output_of('stress-ng', '--stressors').split() if name not in LEFT_OUT]
    return {name: ['stress-ng', '--' + name, '1', '--timeout', '1s', '--verify', '--temp-path', '.'] for name in names}


def cpython_cases():
    with open(HERE + '/cpython.txt') as lines:
        names = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    return {name: [PYTHON, '-m', 'test', name] for name in names}


OPENPOSIX = os.path.abspath(os.path.join(os.environ.get('MOSIX_SUITES', 'suites'), 'openposix'))


def openposix_cases():
    names = sorted(os.listdir(OPENPOSIX + '/bin'))
    return {name: [f'{OPENPOSIX}/bin/{name}'] for name in names}


GOSTD = os.path.abspath(os.path.join(os.environ.get('MOSIX_SUITES', 'suites'), 'gostd'))


def gostd_folders():
    with open(GOSTD + '/folders') as lines:
        return dict(line.rstrip('\n').split('\t') for line in lines)


def gostd_cases():
    return {name: [f'{GOSTD}/bin/{name}', '-test.short', '-test.timeout', '110s'] for name in sorted(gostd_folders())}


SUITES = {
    'cpython': Suite([PYTHON], cpython_cases, [PYTHON, '--version']),
    'gostd': Suite([GOSTD + '/complete'], gostd_cases, ['go', 'version'], folders=gostd_folders),
    # 2: unresolved; 4: unsupported; 5: untested
    'openposix': Suite([OPENPOSIX + '/complete'], openposix_cases,
                       ['dpkg-parsechangelog', '-l', OPENPOSIX + '/source/debian/changelog', '-S', 'Version'],
                       not_applicable=(2, 4, 5)),
    # 2: something failed before it began; 3: no resource; 4: not here
    'stress-ng': Suite(['stress-ng'], stress_ng_cases, ['stress-ng', '--version'], not_applicable=(2, 3, 4)),
}


class Storm(lab_client.Mover):
    """Moves processes at random: which one, and where to, comes from the seed; when it falls, from the machine."""

    def __init__(self, seed, interval):
        super().__init__(interval)
        self.random = random.Random(seed)

    def pause(self):
        return self.random.uniform(0.2, 1.8) * self.interval

    def choose(self, rows):
        return [self.random.choice(rows)] if rows else []

    def target(self, row):
        return self.random.choice([place for place in ('home', 'node2', 'node3') if place != row.get('where')])


# ---- one run, inside the lab

def parse_report(text):
    """What mosrun --report has said: (kind, what has brought it home)."""
    away = re.findall(r'^away (?:at least )?([0-9.]+)s \((\d+) moves?', text, re.M)
    brought = re.findall(r'^brought home (\d+) times?: (.*)$', text, re.M)
    if brought:
        return 'brought home', brought[-1][1]
    if not away:
        return 'no report', ''
    return ('away' if float(away[-1][0]) > 0 or int(away[-1][1]) > 0 else 'home only'), ''


def run_case(suite, name, mode, options):
    command = WRAPPERS[mode] + SUITES[suite].cases()[name]
    base = tempfile.mkdtemp(prefix='mosix-suite-')
    os.chmod(base, 0o755)
    environment = dict(os.environ, LC_ALL='C.UTF-8', HOME=base, TMPDIR=base, TERM='dumb', TZ='UTC')
    storm = Storm(f'{options.seed}:{suite}:{name}', options.interval / 1000) if mode == 'storm' else None
    begin, timed_out = time.monotonic(), False
    with open(base + '.out', 'w+b') as out:
        folder = SUITES[suite].folders().get(name, base)
        environment['PWD'] = folder
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, start_new_session=True)
        if storm:
            storm.start()
        try:
            status = process.wait(options.limit)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        seconds = time.monotonic() - begin
        if storm:
            storm.finish()
        run_matrix.end_descendants()
        out.seek(0)
        text = out.read().decode(errors='replace')
    shutil.rmtree(base, ignore_errors=True)
    os.unlink(base + '.out')
    result = {'suite': suite, 'case': name, 'mode': mode, 'status': status, 'seconds': round(seconds, 2)}
    if timed_out:
        result['outcome'] = 'timeout'
    elif status == 0:
        result['outcome'] = 'pass'
    elif status in SUITES[suite].not_applicable:
        result['outcome'] = 'not applicable'
    else:
        result['outcome'] = 'fail'
    if mode != 'native':
        result['kind'], result['brought'] = parse_report(text)
        left = lab_client.wait_until_quiet()
        if left or (storm and storm.problem):
            result['outcome'], result['left'] = 'fail', left or storm.problem
    if storm:
        result['moves'], result['refused'] = storm.moved, storm.refused
    if result['outcome'] != 'pass':
        result['tail'] = text[-2000:]
    return result


def run_inside(options):
    """The runs that a file names, in this lab. One that leaves something behind is the last."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    with open(options.inside) as lines:
        runs = [json.loads(line) for line in lines]
    for suite, name, mode in runs:
        result = run_case(suite, name, mode, options)
        with open(os.path.join(options.results, suite + '.jsonl'), 'a') as file:
            file.write(json.dumps(result) + '\n')
        kind = f', {result["kind"]}' if 'kind' in result else ''
        why = f': {result["brought"]}' if result.get('brought') else ''
        print(f'{result["outcome"]:8} {suite} {name} {mode} {result["seconds"]} s{kind}{why}', flush=True)
        if 'left' in result:
            print(f'  left behind: {result["left"]}', flush=True)
            return 3
    return 0


# ---- outside

def read_results(folder):
    """suite -> case -> mode -> the last result."""
    results = collections.defaultdict(lambda: collections.defaultdict(dict))
    for name in sorted(os.listdir(folder)):
        if name.endswith('.jsonl'):
            with open(os.path.join(folder, name)) as lines:
                for line in lines:
                    one = json.loads(line)
                    results[one['suite']][one['case']][one['mode']] = one
    return results


def lines_of(folder):
    """How many runs have been made."""
    count = 0
    for name in os.listdir(folder):
        with open(os.path.join(folder, name)) as lines:
            count += sum(1 for _ in lines)
    return count


def run_in_labs(runs, options):
    """In labs of so many cases, so that what one leaves behind meets few others."""
    done = 0
    while done < len(runs):
        batch = runs[done:done + options.batch]
        before = lines_of(options.results)
        with tempfile.NamedTemporaryFile('w', suffix='.jsonl') as file:
            file.writelines(json.dumps(run) + '\n' for run in batch)
            file.flush()
            words = ['mosixlab', 'run', '-n', '3', '--', sys.executable, os.path.abspath(__file__), '--inside', file.name,
                     '--results', options.results, '--limit', str(options.limit), '--seed', str(options.seed),
                     '--interval', str(options.interval)]
            status = subprocess.call(words)
        if status == 0:
            done += len(batch)
            continue
        made = lines_of(options.results) - before
        if made <= 0 and status != 3:
            sys.exit(f'run_suites: the lab failed with status {status}')
        done += max(made, 1)


def needed_runs(wanted, modes, options):
    """Those of these modes that are wanted, have not been made, and pass natively."""
    have = read_results(options.results)
    runs = []
    for suite, names in wanted.items():
        for name in names:
            known = have[suite][name]
            passes = known.get('native', {}).get('outcome') == 'pass'
            runs += [(suite, name, mode) for mode in modes
                     if (mode == 'native' or passes) and (options.again or mode not in known)]
    return runs


def table_of(results, versions):
    """Markdown: one line for each suite, then every case that differs, with what it is."""
    lines = ['| suite | cases | native | home | away | throughout | brought home | home only | storm | moves |',
             '|---|---|---|---|---|---|---|---|---|---|']
    rows = []
    for suite, cases in sorted(results.items()):
        passing = {name: modes for name, modes in cases.items() if modes.get('native', {}).get('outcome') == 'pass'}

        def passed(mode):
            made = [modes[mode] for modes in passing.values() if mode in modes]
            return f'{sum(one["outcome"] == "pass" for one in made)} of {len(made)}' if made else '-'

        kinds = collections.Counter(modes['away'].get('kind') for modes in passing.values()
                                    if modes.get('away', {}).get('outcome') == 'pass')
        moves = sum(modes['storm'].get('moves', 0) for modes in passing.values() if 'storm' in modes)
        lines.append(f'| {suite} ({versions.get(suite, "?")}) | {len(cases)} | {len(passing)} | {passed("home")} | '
                     f'{passed("away")} | {kinds["away"]} | {kinds["brought home"]} | {kinds["home only"]} | '
                     f'{passed("storm")} | {moves} |')
        for name, modes in sorted(passing.items()):
            for mode in ('home', 'away', 'storm'):
                one = modes.get(mode)
                if one is None:
                    continue
                if one['outcome'] != 'pass':
                    what = one['outcome'] + (f' (status {one["status"]})' if one['outcome'] == 'fail' else '')
                    rows.append(f'| {suite} | {name} | {mode} | {what}{": " + one["left"] if "left" in one else ""} |')
                elif mode == 'away' and one.get('kind') != 'away':
                    rows.append(f'| {suite} | {name} | {mode} | {one["kind"]}'
                                f'{": " + one["brought"] if one.get("brought") else ""} |')
    if rows:
        lines += ['', '| suite | case | mode | what is to be removed |', '|---|---|---|---|'] + rows
    return '\n'.join(lines) + '\n'


HEAD = """# Suites that others wrote

Printed by `scripts/conformance.sh`. Of the cases that pass natively: how many pass at home under libmosix, started on another
node, and while their processes are moved at random (`storm`, with the number of moves). Those that pass away are told apart:
away *throughout*, *brought home* by a call that cannot be made away yet, *home only*. Then each case that differs, by name.
A dash: not run yet.

"""


def parse_options():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--modes', default='native,home,away,storm')
    parser.add_argument('--limit', type=float, default=120)
    parser.add_argument('--interval', type=float, default=60)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--batch', type=int, default=20)
    parser.add_argument('--results', default='conformance')
    parser.add_argument('--again', action='store_true')
    parser.add_argument('--table')
    parser.add_argument('--no-run', action='store_true')
    parser.add_argument('--inside')
    parser.add_argument('suites', nargs='*')
    options = parser.parse_args()
    options.modes = options.modes.split(',')
    options.results = os.path.abspath(options.results)
    unknown = [mode for mode in options.modes if mode not in WRAPPERS]
    unknown += [word for word in options.suites if word.split(':')[0] not in SUITES]
    if unknown:
        parser.error('unknown: ' + ', '.join(unknown))
    return options


def wanted_cases(options):
    wanted, skipped = {}, 0
    for word in options.suites or sorted(SUITES):
        suite, _, names = word.partition(':')
        missing = SUITES[suite].missing()
        if missing:
            print(f'skipped {suite}: not installed: {", ".join(missing)} (scripts/setup.sh --suites)')
            skipped += 1
            continue
        cases = SUITES[suite].cases()
        unknown = [name for name in names.split(',') if name and name not in cases]
        if unknown:
            sys.exit(f'run_suites: not in {suite}: {", ".join(unknown)}')
        wanted[suite] = names.split(',') if names else list(cases)
    return wanted, skipped


def main():
    options = parse_options()
    os.makedirs(options.results, exist_ok=True)
    if options.inside:
        sys.exit(run_inside(options))
    if shutil.which('mosixlab') is None:
        sys.exit('run_suites: mosixlab is not in PATH; run it by scripts/conformance.sh or `meson devenv`')
    wanted, skipped = wanted_cases(options)
    if not options.no_run:
        for modes in (['native'], [mode for mode in options.modes if mode != 'native']):
            runs = needed_runs(wanted, modes, options)
            if runs:
                print(f'{len(runs)} runs: {", ".join(modes)}', flush=True)
                run_in_labs(runs, options)
    results = read_results(options.results)
    if options.table:
        versions = {suite: SUITES[suite].version() for suite in results if not SUITES[suite].missing()}
        with open(options.table, 'w') as file:
            file.write(HEAD + table_of(results, versions))
    passed = failed = 0
    for suite, names in wanted.items():
        for name in names:
            for mode in options.modes:
                one = results[suite][name].get(mode)
                if one is None or one['outcome'] == 'not applicable' or mode == 'native' and one['outcome'] != 'pass':
                    skipped += 1
                elif one['outcome'] == 'pass':
                    passed += 1
                else:
                    failed += 1
    print(f'tally: {passed} passed, {failed} failed, {skipped} skipped')
    sys.exit(1 if failed else 77 if not passed else 0)


if __name__ == '__main__':
    main()
