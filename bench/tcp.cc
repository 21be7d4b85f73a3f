// The baselines of the network figures: a bare TCP connection between the same two nodes.
//   tcp serve PORT                      serves until it is killed; prints "ready"
//   tcp echo HOST PORT COUNT OUT BACK   nanoseconds of one exchange of OUT bytes there and BACK bytes back
//   tcp stream HOST PORT MEGABYTES      megabytes a second, one way, until the other end has all of it
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "bench/clock.h"

namespace {

struct Hello {
  uint64_t out = 0, back = 0, total = 0;  // total: a stream of so many bytes
};

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

void send_all(int fd, const char* data, size_t bytes) {
  for (size_t sent = 0; sent < bytes;) {
    const ssize_t now = send(fd, data + sent, bytes - sent, MSG_NOSIGNAL);
    if (now <= 0) fail("send");
    sent += static_cast<size_t>(now);
  }
}

bool receive_all(int fd, char* data, size_t bytes) {
  for (size_t have = 0; have < bytes;) {
    const ssize_t now = recv(fd, data + have, bytes - have, 0);
    if (now <= 0) return false;
    have += static_cast<size_t>(now);
  }
  return true;
}

sockaddr_in address_of(const char* host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
    fprintf(stderr, "tcp: not an address: %s\n", host);
    exit(2);
  }
  return address;
}

void no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void serve_connection(int fd) {
  no_delay(fd);
  Hello hello;
  if (!receive_all(fd, reinterpret_cast<char*>(&hello), sizeof hello)) return;
  if (hello.total != 0) {
    std::vector<char> buffer(1 << 20);
    for (uint64_t left = hello.total; left != 0;) {
      const ssize_t now = recv(fd, buffer.data(), std::min<uint64_t>(left, buffer.size()), 0);
      if (now <= 0) return;
      left -= static_cast<uint64_t>(now);
    }
    send_all(fd, "!", 1);
    return;
  }
  std::vector<char> in(hello.out), back(hello.back);
  while (receive_all(fd, in.data(), in.size())) send_all(fd, back.data(), back.size());
}

int serve(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = address_of("0.0.0.0", port);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(fd, 4) != 0)
    fail("listen");
  puts("ready");
  fflush(stdout);
  for (;;) {
    const int connection = accept(fd, nullptr, nullptr);
    if (connection < 0) fail("accept");
    serve_connection(connection);
    close(connection);
  }
}

int connect_to(const char* host, int port, const Hello& hello) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in address = address_of(host, port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("connect");
  no_delay(fd);
  send_all(fd, reinterpret_cast<const char*>(&hello), sizeof hello);
  return fd;
}

int echo(char** words) {
  const int count = atoi(words[2]);
  const Hello hello{strtoull(words[3], nullptr, 10), strtoull(words[4], nullptr, 10), 0};
  const int fd = connect_to(words[0], atoi(words[1]), hello);
  std::vector<char> out(hello.out), back(hello.back);
  const int batch = std::max(1, count / 20);
  std::vector<double> each;
  for (int done = -batch; done < count; done += batch) {
    const double start = bench::now_ns();
    for (int i = 0; i < batch; ++i) {
      send_all(fd, out.data(), out.size());
      if (!receive_all(fd, back.data(), back.size())) fail("recv");
    }
    if (done >= 0) each.push_back((bench::now_ns() - start) / batch);
  }
  printf("%.1f\n", bench::median(each));
  return 0;
}

int stream(char** words) {
  const uint64_t bytes = strtoull(words[2], nullptr, 10) << 20;
  const int fd = connect_to(words[0], atoi(words[1]), {0, 0, bytes});
  std::vector<char> data(1 << 20, 'x');
  const double start = bench::now_ns();
  for (uint64_t sent = 0; sent < bytes; sent += data.size()) send_all(fd, data.data(), data.size());
  char done;
  if (!receive_all(fd, &done, 1)) fail("recv");
  printf("%.1f\n", static_cast<double>(bytes) / 1e6 / ((bench::now_ns() - start) / 1e9));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  if (verb == "serve" && argc == 3) return serve(atoi(argv[2]));
  if (verb == "echo" && argc == 7) return echo(argv + 2);
  if (verb == "stream" && argc == 5) return stream(argv + 2);
  fprintf(stderr, "usage: tcp serve PORT | echo HOST PORT COUNT OUT BACK | stream HOST PORT MEGABYTES\n");
  return 2;
}
