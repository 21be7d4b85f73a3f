// Pipes and waiting for descriptors: partial transfers, non-blocking ends, SIGPIPE, poll, select, epoll,
// eventfd, and processes that pass data along.
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "check.h"

using check::Fenced;
using check::Scratch;

namespace {

struct Pipe {
  int in = -1, out = -1;
  explicit Pipe(int flags = 0) {
    int ends[2];
    CHECK_EQ(pipe2(ends, flags), 0);
    in = ends[0];
    out = ends[1];
  }
  ~Pipe() {
    close_in();
    close_out();
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_in() {
    if (in >= 0) close(in);
    in = -1;
  }
  void close_out() {
    if (out >= 0) close(out);
    out = -1;
  }
};

void there_and_back() {
  Pipe line;
  CHECK_EQ(write(line.out, "hello", 5), 5);
  int waiting = 0;
  CHECK_EQ(ioctl(line.in, FIONREAD, &waiting), 0);
  CHECK_EQ(waiting, 5);
  char buffer[16] = {};
  CHECK_EQ(read(line.in, buffer, 2), 2);
  CHECK_EQ(read(line.in, buffer + 2, sizeof buffer - 2), 3);
  CHECK_EQ(std::string(buffer), "hello");
  line.close_out();
  CHECK_EQ(read(line.in, buffer, sizeof buffer), 0);
  CHECK_FAILS(write(line.in, "x", 1), EBADF);
  CHECK_FAILS(lseek(line.in, 0, SEEK_CUR), ESPIPE);
}

void non_blocking_and_partial() {
  Pipe line(O_NONBLOCK | O_CLOEXEC);
  char byte = 0;
  CHECK_FAILS(read(line.in, &byte, 1), EAGAIN);
  const int room = fcntl(line.out, F_SETPIPE_SZ, 65536);
  CHECK_EQ(room, 65536);
  std::vector<char> data(100000, 'd');
  CHECK_EQ(write(line.out, data.data(), data.size()), 65536);
  CHECK_FAILS(write(line.out, data.data(), 1), EAGAIN);
  std::vector<char> back(4096);
  CHECK_EQ(read(line.in, back.data(), back.size()), 4096);
  CHECK_EQ(write(line.out, data.data(), 5000), 4096);
  CHECK_FAILS(write(line.out, data.data(), 5000), EAGAIN);
  CHECK_EQ(fcntl(line.in, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(fcntl(line.in, F_SETFL, 0), 0);
  CHECK_EQ(fcntl(line.in, F_GETFL) & O_NONBLOCK, 0);
}

void blocking_writer_and_reader() {
  Pipe line;
  constexpr size_t kBytes = 3 << 20;
  fflush(stdout);
  const pid_t writer = fork();
  CHECK(writer >= 0);
  if (writer == 0) {
    line.close_in();
    std::vector<unsigned char> data(kBytes);
    for (size_t i = 0; i < kBytes; ++i) data[i] = static_cast<unsigned char>(i * 31 >> 3);
    _exit(write(line.out, data.data(), kBytes) == static_cast<ssize_t>(kBytes) ? 0 : 1);
  }
  line.close_out();
  size_t total = 0;
  bool right = true, moved = false;
  unsigned char buffer[7001];
  for (ssize_t got; (got = read(line.in, buffer, sizeof buffer)) > 0; total += static_cast<size_t>(got)) {
    for (ssize_t i = 0; i < got; ++i)
      right = right && buffer[i] == static_cast<unsigned char>((total + static_cast<size_t>(i)) * 31 >> 3);
    if (!moved && total > kBytes / 2) {
      moved = true;
      move_point();
    }
  }
  CHECK_EQ(total, kBytes);
  CHECK(right);
  int ended = -1;
  CHECK_EQ(waitpid(writer, &ended, 0), writer);
  CHECK_EQ(ended, 0);
}

unsigned char pattern(size_t at) { return static_cast<unsigned char>(at * 31 >> 3); }

/// A write that is blocked in its middle while its process moves, from place to place and home.
template <class Give>
void a_blocked_write_moves(int in, int out, Give give) {
  constexpr size_t kBytes = 1 << 20, kStep = 30000;
  fflush(stdout);
  const pid_t writer = fork();
  CHECK(writer >= 0);
  if (writer == 0) {
    close(in);
    std::vector<unsigned char> data(kBytes);
    for (size_t i = 0; i < kBytes; ++i) data[i] = pattern(i);
    _exit(give(out, data.data(), kBytes) == static_cast<ssize_t>(kBytes) ? 0 : 1);
  }
  close(out);
  std::vector<unsigned char> buffer(kStep);
  size_t total = 0;
  bool right = true;
  for (int round = 0;; ++round) {
    if (round < 8) {
      // Blocked is who has filled what there is.
      for (int before = -1, now = 0; now == 0 || now != before;) {
        before = now;
        timespec pause{0, 5'000'000};
        nanosleep(&pause, nullptr);
        CHECK_EQ(ioctl(in, FIONREAD, &now), 0);
      }
      move_point_of(writer);
    }
    const ssize_t got = read(in, buffer.data(), buffer.size());
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; ++i)
      right = right && buffer[static_cast<size_t>(i)] == pattern(total + static_cast<size_t>(i));
    total += static_cast<size_t>(got);
  }
  CHECK_EQ(total, kBytes);
  CHECK(right);
  close(in);
  int ended = -1;
  CHECK_EQ(waitpid(writer, &ended, 0), writer);
  CHECK_EQ(ended, 0);
}

std::vector<iovec> in_pieces(unsigned char* data, size_t bytes) {
  std::vector<iovec> pieces;
  for (size_t at = 0, step = 1; at < bytes; at += step, step = step * 7 % 99991 + 1) {
    step = std::min(step, bytes - at);
    pieces.push_back({data + at, step});
  }
  return pieces;
}

void blocked_writes_move() {
  int line[2];
  CHECK_EQ(pipe(line), 0);
  a_blocked_write_moves(line[0], line[1],
                        [](int out, unsigned char* data, size_t bytes) { return write(out, data, bytes); });
  CHECK_EQ(pipe(line), 0);
  a_blocked_write_moves(line[0], line[1], [](int out, unsigned char* data, size_t bytes) {
    std::vector<iovec> pieces = in_pieces(data, bytes);
    return writev(out, pieces.data(), static_cast<int>(pieces.size()));
  });
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, line), 0);
  a_blocked_write_moves(line[0], line[1], [](int out, unsigned char* data, size_t bytes) {
    std::vector<iovec> pieces = in_pieces(data, bytes);
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = pieces.size();
    return sendmsg(out, &message, 0);
  });
}

void broken_pipe() {
  CHECK_EQ(check::in_child([] {
             Pipe line;
             line.close_in();
             signal(SIGPIPE, SIG_DFL);
             (void)!write(line.out, "x", 1);
             return 0;  // not reached
           }),
           SIGPIPE);
  Pipe line;
  line.close_in();
  const auto before = signal(SIGPIPE, SIG_IGN);
  CHECK_FAILS(write(line.out, "x", 1), EPIPE);
  static volatile sig_atomic_t seen = 0;
  seen = 0;
  signal(SIGPIPE, [](int) { seen = seen + 1; });
  CHECK_FAILS(write(line.out, "x", 1), EPIPE);
  CHECK_EQ(static_cast<int>(seen), 1);
  signal(SIGPIPE, before);
}

void poll_sees_states() {
  Pipe line;
  pollfd watch[3] = {{line.in, POLLIN, 0}, {line.out, POLLOUT, 0}, {-1, POLLIN, 77}};
  CHECK_EQ(poll(watch, 3, 0), 1);
  CHECK_EQ(watch[0].revents, 0);
  CHECK_EQ(watch[1].revents, POLLOUT);
  CHECK_EQ(watch[2].revents, 0);
  CHECK_EQ(write(line.out, "x", 1), 1);
  CHECK_EQ(poll(watch, 2, -1), 2);
  CHECK_EQ(watch[0].revents, POLLIN);
  line.close_out();
  CHECK_EQ(poll(watch, 1, -1), 1);
  CHECK_EQ(watch[0].revents, POLLIN | POLLHUP);
  watch[0].fd = 999;
  CHECK_EQ(poll(watch, 1, -1), 1);
  CHECK_EQ(watch[0].revents, POLLNVAL);
  const double start = check::seconds_of(CLOCK_MONOTONIC);
  CHECK_EQ(poll(nullptr, 0, 50), 0);
  CHECK(check::seconds_of(CLOCK_MONOTONIC) - start >= 0.050);
}

/// Limits shorter than a move, one after the other: what is left is told as none, wherever they run out.
void short_limits_run_out() {
  Pipe line;
  for (int i = 0; i < 30; ++i) {
    fd_set in;
    FD_ZERO(&in);
    FD_SET(line.in, &in);
    timeval limit{0, 10000};
    CHECK_EQ(select(line.in + 1, &in, nullptr, nullptr, &limit), 0);
    CHECK_EQ(limit.tv_sec * 1000000 + limit.tv_usec, 0L);
  }
}

void select_sees_states() {
  Pipe line;
  fd_set in, out;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_SET(line.in, &in);
  FD_SET(line.out, &out);
  const int highest = std::max(line.in, line.out) + 1;
  timeval none{0, 0};
  CHECK_EQ(select(highest, &in, &out, nullptr, &none), 1);
  CHECK(!FD_ISSET(line.in, &in));
  CHECK(FD_ISSET(line.out, &out));
  timeval limit{0, 30000};
  FD_ZERO(&in);
  FD_SET(line.in, &in);
  CHECK_EQ(select(highest, &in, nullptr, nullptr, &limit), 0);
  CHECK_EQ(limit.tv_sec * 1000000 + limit.tv_usec, 0L);
  CHECK_EQ(write(line.out, "x", 1), 1);
  FD_SET(line.in, &in);
  limit = {100, 0};
  CHECK_EQ(select(highest, &in, nullptr, nullptr, &limit), 1);
  CHECK(limit.tv_sec >= 90);  // Linux writes back what is left
  timespec precise{0, 1000000};
  FD_ZERO(&in);
  CHECK_EQ(pselect(0, nullptr, nullptr, nullptr, &precise, nullptr), 0);
  const int closed = line.out;
  line.close_out();
  FD_SET(closed, &in);
  CHECK_FAILS(select(closed + 1, &in, nullptr, nullptr, &none), EBADF);
}

void epoll_levels_and_edges() {
  Pipe line(O_NONBLOCK);
  const int set = epoll_create1(EPOLL_CLOEXEC);
  CHECK(set >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0x1234567890abcdefull;
  CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, line.in, &event), 0);
  CHECK_FAILS(epoll_ctl(set, EPOLL_CTL_ADD, line.in, &event), EEXIST);
  epoll_event ready[4]{};
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 0);
  CHECK_EQ(write(line.out, "ab", 2), 2);
  CHECK_EQ(epoll_wait(set, ready, 4, -1), 1);
  CHECK_EQ(ready[0].events, static_cast<uint32_t>(EPOLLIN));
  CHECK_EQ(uint64_t{ready[0].data.u64}, 0x1234567890abcdefull);
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 1);
  move_point();
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 1);
  event.events = EPOLLIN | EPOLLET;
  CHECK_EQ(epoll_ctl(set, EPOLL_CTL_MOD, line.in, &event), 0);
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 1);
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 0);
  CHECK_EQ(write(line.out, "c", 1), 1);
  CHECK_EQ(epoll_wait(set, ready, 4, 0), 1);
  CHECK_EQ(epoll_pwait(set, ready, 4, 10, nullptr), 0);
  CHECK_EQ(epoll_ctl(set, EPOLL_CTL_DEL, line.in, nullptr), 0);
  CHECK_FAILS(epoll_ctl(set, EPOLL_CTL_DEL, line.in, nullptr), ENOENT);
  CHECK_FAILS(epoll_wait(set, ready, 0, 0), EINVAL);
  close(set);
}

void eventfd_counts() {
  const int counter = eventfd(3, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(counter >= 0);
  uint64_t value = 0;
  CHECK_EQ(read(counter, &value, 8), 8);
  CHECK_EQ(value, 3u);
  CHECK_FAILS(read(counter, &value, 8), EAGAIN);
  value = 40;
  CHECK_EQ(write(counter, &value, 8), 8);
  value = 2;
  CHECK_EQ(write(counter, &value, 8), 8);
  CHECK_FAILS(read(counter, &value, 4), EINVAL);
  CHECK_EQ(read(counter, &value, 8), 8);
  CHECK_EQ(value, 42u);
  close(counter);
}

void another_thread_wakes_a_reader() {
  Pipe there, back;
  std::thread echo([&] {
    char byte;
    while (read(there.in, &byte, 1) == 1) {
      ++byte;
      if (write(back.out, &byte, 1) != 1) return;
    }
  });
  for (int i = 0; i < 200; ++i) {
    char byte = static_cast<char>(i & 63);
    CHECK_EQ(write(there.out, &byte, 1), 1);
    char answer = 0;
    CHECK_EQ(read(back.in, &answer, 1), 1);
    CHECK_EQ(static_cast<int>(answer), (i & 63) + 1);
    if (i == 100) move_point();
  }
  there.close_out();
  echo.join();
}

void named_pipe() {
  Scratch scratch;
  CHECK_EQ(mkfifo("fifo", 0600), 0);
  CHECK_FAILS(open("fifo", O_WRONLY | O_NONBLOCK), ENXIO);
  fflush(stdout);
  const pid_t writer = fork();
  CHECK(writer >= 0);
  if (writer == 0) {
    const int out = open("fifo", O_WRONLY);  // waits for the reader
    _exit(write(out, "through the fifo", 16) == 16 ? 0 : 1);
  }
  const int in = open("fifo", O_RDONLY);
  CHECK(in >= 0);
  char buffer[32] = {};
  size_t have = 0;
  for (ssize_t got; (got = read(in, buffer + have, sizeof buffer - have)) > 0;)
    have += static_cast<size_t>(got);
  CHECK_EQ(std::string(buffer), "through the fifo");
  close(in);
  int status = -1;
  CHECK_EQ(waitpid(writer, &status, 0), writer);
  CHECK_EQ(status, 0);
}

void chain_of_processes() {
  // Ten children, each adds one to every byte that passes.
  constexpr int kLinks = 10;
  Pipe first;
  int input = first.in;
  std::vector<pid_t> children;
  fflush(stdout);
  for (int i = 0; i < kLinks; ++i) {
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      close(first.out);
      close(ends[0]);
      char byte;
      while (read(input, &byte, 1) == 1) {
        ++byte;
        if (write(ends[1], &byte, 1) != 1) _exit(1);
      }
      _exit(0);
    }
    close(ends[1]);
    close(input);
    input = ends[0];
    children.push_back(child);
  }
  first.in = -1;
  CHECK_EQ(write(first.out, "HAL", 3), 3);
  first.close_out();
  std::string all;
  char byte;
  while (read(input, &byte, 1) == 1) all += byte;
  CHECK_EQ(all, "RKV");
  close(input);
  for (pid_t child : children) {
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
  }
}

void inotify_reports() {
  Scratch scratch;
  const int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  CHECK(watch >= 0);
  CHECK(inotify_add_watch(watch, ".", IN_CREATE | IN_DELETE) >= 0);
  alignas(8) char buffer[4096];
  CHECK_FAILS(read(watch, buffer, sizeof buffer), EAGAIN);
  close(open("born", O_WRONLY | O_CREAT, 0600));
  unlink("born");
  ssize_t got = read(watch, buffer, sizeof buffer);
  CHECK(got > 0);
  auto* event = reinterpret_cast<inotify_event*>(buffer);
  CHECK_EQ(event->mask, static_cast<uint32_t>(IN_CREATE));
  CHECK_EQ(std::string(event->name), "born");
  event = reinterpret_cast<inotify_event*>(buffer + sizeof(inotify_event) + event->len);
  CHECK_EQ(event->mask, static_cast<uint32_t>(IN_DELETE));
  close(watch);
}

void vectors_and_edges() {
  Pipe line;
  Fenced fence;
  char a[] = "ab", b[] = "cdef";
  iovec out[] = {{a, 2}, {b, 4}};
  CHECK_EQ(writev(line.out, out, 2), 6);
  iovec in[] = {{fence.at(4), 4}, {a, 2}};
  CHECK_EQ(readv(line.in, in, 2), 6);
  CHECK_EQ(std::string(fence.at(4), 4) + std::string(a, 2), "abcdef");
  CHECK_EQ(write(line.out, "xyz", 3), 3);
  iovec more[] = {{fence.at(100), 100}, {b, 4}};
  CHECK_EQ(readv(line.in, more, 2), 3);
  CHECK_EQ(std::string(fence.at(100), 3), "xyz");
}

void tee_copies() {
  Pipe from, to(O_NONBLOCK);
  CHECK_EQ(write(from.out, "both", 4), 4);
  CHECK_EQ(tee(from.in, to.out, 100, 0), 4);
  char buffer[8] = {};
  CHECK_EQ(read(to.in, buffer, sizeof buffer), 4);
  CHECK_EQ(read(from.in, buffer + 4, 4), 4);
  CHECK_EQ(std::string(buffer, 8), "bothboth");
  CHECK_FAILS(read(to.in, buffer, 1), EAGAIN);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"there-and-back", there_and_back},
                     {"non-blocking-and-partial", non_blocking_and_partial},
                     {"blocking-writer-and-reader", blocking_writer_and_reader},
                     {"blocked-writes-move", blocked_writes_move},
                     {"broken-pipe", broken_pipe},
                     {"poll-sees-states", poll_sees_states},
                     {"select-sees-states", select_sees_states},
                     {"short-limits-run-out", short_limits_run_out},
                     {"epoll-levels-and-edges", epoll_levels_and_edges},
                     {"eventfd-counts", eventfd_counts},
                     {"another-thread-wakes-a-reader", another_thread_wakes_a_reader},
                     {"named-pipe", named_pipe},
                     {"chain-of-processes", chain_of_processes},
                     {"inotify-reports", inotify_reports},
                     {"vectors-and-edges", vectors_and_edges},
                     {"tee-copies", tee_copies}});
}
