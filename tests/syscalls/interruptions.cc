// Calls that block and are met by a signal: EINTR where Linux says so, restarts where the handler asks for
// them, partial results. A timer keeps knocking until the call has been met; nothing depends on who is
// faster.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstdio>
#include <functional>
#include <utility>
#include <vector>

#include "move_point.h"
#include "signal_tools.h"

using check::Scratch;

namespace {

/// Makes a call that blocks for ever until it has been interrupted.
void interrupted(const char* what, const std::function<long()>& call, int flags = 0) {
  Knocking knocking(20, flags);
  errno = 0;
  const long result = call();
  const int code = errno;
  if (result != -1 || code != EINTR)
    check::differs(
        __FILE__, __LINE__,
        std::string(what) + " gave " + std::to_string(result) + " with " + strerror(code) + " and not EINTR");
  if (handled < 1)
    check::differs(__FILE__, __LINE__, std::string(what) + " was interrupted, and no handler has run");
}

void blocked_calls_are_interrupted() {
  Scratch scratch;
  char buffer[65536];
  int ends[2], pair[2];
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  interrupted("read", [&] { return read(ends[0], buffer, 1); });
  interrupted("recv", [&] { return recv(pair[0], buffer, 1, 0); });
  CHECK_EQ(fcntl(ends[1], F_SETPIPE_SZ, 65536), 65536);
  memset(buffer, 0, sizeof buffer);
  CHECK_EQ(write(ends[1], buffer, sizeof buffer), 65536);
  interrupted("write", [&] { return write(ends[1], buffer, 1); });
  pollfd watch{pair[0], POLLIN, 0};
  interrupted("poll", [&] { return poll(&watch, 1, -1); });
  interrupted("ppoll", [&] { return ppoll(&watch, 1, nullptr, nullptr); });
  fd_set set;
  FD_ZERO(&set);
  interrupted("select", [&] { return select(0, &set, nullptr, nullptr, nullptr); });
  interrupted("pselect", [&] { return pselect(0, &set, nullptr, nullptr, nullptr, nullptr); });
  const int epoll = epoll_create1(0);
  epoll_event event{};
  interrupted("epoll_wait", [&] { return epoll_wait(epoll, &event, 1, -1); });
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  strcpy(name.sun_path, "s");
  CHECK_EQ(bind(server, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  CHECK_EQ(listen(server, 1), 0);
  interrupted("accept", [&] { return accept(server, nullptr, nullptr); });
  interrupted("pause", [] { return pause(); });
  timespec rest{};
  const timespec long_while{1000, 0};
  interrupted("nanosleep", [&] { return nanosleep(&long_while, &rest); });
  CHECK(rest.tv_sec >= 990 && rest.tv_sec < 1000);
  sigset_t none, usr1;
  sigemptyset(&none);
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  interrupted("sigsuspend", [&] { return sigsuspend(&none); });
  interrupted("sigwaitinfo", [&] { return sigwaitinfo(&usr1, nullptr); });
  interrupted("sigtimedwait", [&] { return sigtimedwait(&usr1, nullptr, &long_while); });
  const int queue = msgget(IPC_PRIVATE, 0600);
  struct {
    long type;
    char text[8];
  } message{};
  interrupted("msgrcv", [&] { return msgrcv(queue, &message, 8, 0, 0); });
  msgctl(queue, IPC_RMID, nullptr);
  const int semaphores = semget(IPC_PRIVATE, 1, 0600);
  sembuf down{0, -1, 0};
  interrupted("semop", [&] { return semop(semaphores, &down, 1); });
  interrupted("semtimedop", [&] { return semtimedop(semaphores, &down, 1, &long_while); });
  semctl(semaphores, 0, IPC_RMID);
  CHECK_EQ(mkfifo("fifo", 0600), 0);
  interrupted("open of a fifo", [] { return open("fifo", O_RDONLY); });
  // A child that stays until its pipe closes: for wait and for locks.
  int hold[2], ready[2];
  CHECK_EQ(pipe(hold), 0);
  CHECK_EQ(pipe(ready), 0);
  const int file = open("locked", O_RDWR | O_CREAT, 0600);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    struct flock lock {};
    lock.l_type = F_WRLCK;
    const int own = open("locked", O_RDWR);
    if (fcntl(own, F_SETLK, &lock) != 0 || flock(own, LOCK_EX) != 0) _exit(1);
    if (write(ready[1], "r", 1) != 1) _exit(2);
    _exit(read(hold[0], buffer, 1) == 0 ? 0 : 3);
  }
  close(hold[0]);
  CHECK_EQ(read(ready[0], buffer, 1), 1);
  int status = 0;
  siginfo_t info{};
  interrupted("wait4", [&] { return waitpid(child, &status, 0); });
  interrupted("waitid", [&] { return waitid(P_PID, static_cast<id_t>(child), &info, WEXITED); });
  struct flock lock {};
  lock.l_type = F_RDLCK;
  interrupted("fcntl lock", [&] { return fcntl(file, F_SETLKW, &lock); });
  interrupted("flock", [&] { return flock(file, LOCK_SH); });
  close(hold[1]);
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  // These are interrupted even where the handler asks for restarts.
  interrupted(
      "poll, restart", [&] { return poll(&watch, 1, -1); }, SA_RESTART);
  interrupted(
      "pause, restart", [] { return pause(); }, SA_RESTART);
  interrupted(
      "nanosleep, restart", [&] { return nanosleep(&long_while, nullptr); }, SA_RESTART);
  interrupted(
      "epoll_wait, restart", [&] { return epoll_wait(epoll, &event, 1, -1); }, SA_RESTART);
  interrupted(
      "semop on removal",
      [&] {
        const int own = semget(IPC_PRIVATE, 1, 0600);
        const long result = semop(own, &down, 1);
        const int code = errno;
        semctl(own, 0, IPC_RMID);
        errno = code;
        return result;
      },
      SA_RESTART);
  for (int fd : {ends[0], ends[1], pair[0], pair[1], epoll, server, ready[0], ready[1], file}) close(fd);
}

int restart_pipe[2];

void calls_go_on_after_a_handler() {
  // The handler runs again and again; at its fifth time it lets the call succeed.
  CHECK_EQ(pipe(restart_pipe), 0);
  char byte = 0;
  {
    Knocking knocking(10, SA_RESTART);
    Handler handler(
        SIGALRM,
        [](int) {
          handled = handled + 1;
          if (handled == 5 && write(restart_pipe[1], "x", 1) != 1) _exit(9);
        },
        SA_RESTART);
    CHECK_EQ(read(restart_pipe[0], &byte, 1), 1);
    CHECK(handled >= 5);
  }
  CHECK_EQ(byte, 'x');
  // wait4, likewise: the child ends when the handler closes its pipe.
  fflush(stdout);
  static int gate[2];
  CHECK_EQ(pipe(gate), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(gate[1]);
    char end;
    _exit(read(gate[0], &end, 1) == 0 ? 33 : 1);
  }
  close(gate[0]);
  int status = 0;
  {
    Knocking knocking(10);
    Handler handler(
        SIGALRM,
        [](int) {
          handled = handled + 1;
          if (handled == 5) close(gate[1]);
        },
        SA_RESTART);
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(handled >= 5);
  }
  CHECK_EQ(WEXITSTATUS(status), 33);
  close(restart_pipe[0]);
  close(restart_pipe[1]);
}

void interrupted_transfer_is_partial() {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(fcntl(ends[1], F_SETPIPE_SZ, 65536), 65536);
  std::vector<char> data(200000, 'p');
  Knocking knocking(20);
  CHECK_EQ(write(ends[1], data.data(), data.size()), 65536);
  close(ends[0]);
  close(ends[1]);
}

/// A child that waits in `call` (which gets a descriptor that is silent until it is written to, and a time limit) is
/// moved again and again meanwhile.
using TimedCall = std::function<long(int, long)>;
bool child_waits_well(const TimedCall& call, long limit_ms, bool becomes_ready) {
  int line[2];
  CHECK_EQ(pipe(line), 0);
  fflush(stdout);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    const double begun = check::seconds_of(CLOCK_MONOTONIC);
    const long result = call(line[0], limit_ms);
    const double waited = check::seconds_of(CLOCK_MONOTONIC) - begun;
    const double limit = static_cast<double>(limit_ms) / 1000;
    // Half of it again is for a loaded machine; a limit that begins anew with each move takes longer.
    const bool in_time = becomes_ready ? waited < limit : waited >= limit - 0.002 && waited < 1.5 * limit;
    _exit(result == (becomes_ready ? 1 : 0) && in_time ? 0 : 1);
  }
  for (int i = 0; i < 9; ++i) {
    timespec pause{0, 90'000'000};
    nanosleep(&pause, nullptr);
    move_point_of(child);
  }
  if (becomes_ready) CHECK_EQ(write(line[1], "!", 1), 1);
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  close(line[0]);
  close(line[1]);
  return status == 0;
}

void time_limits_last_over_moves() {
  const std::pair<const char*, TimedCall> calls[] = {
      {"poll",
       [](int fd, long ms) -> long {
         pollfd watch{fd, POLLIN, 0};
         const int ready = poll(&watch, 1, static_cast<int>(ms));
         return ready == 1 && watch.revents != POLLIN ? -1 : ready;
       }},
      {"ppoll",
       [](int fd, long ms) -> long {
         pollfd watch{fd, POLLIN, 0};
         const timespec limit{ms / 1000, ms % 1000 * 1'000'000};
         const int ready = ppoll(&watch, 1, &limit, nullptr);
         return ready == 1 && watch.revents != POLLIN ? -1 : ready;
       }},
      {"select",
       [](int fd, long ms) -> long {
         fd_set set;
         FD_ZERO(&set);
         FD_SET(fd, &set);
         timeval limit{ms / 1000, ms % 1000 * 1000};
         const int ready = select(fd + 1, &set, nullptr, nullptr, &limit);
         return ready == 1 && !FD_ISSET(fd, &set) ? -1 : ready;
       }},
      {"epoll_wait",
       [](int fd, long ms) -> long {
         const int epoll = epoll_create1(0);
         epoll_event event{};
         event.events = EPOLLIN;
         epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
         const int ready = epoll_wait(epoll, &event, 1, static_cast<int>(ms));
         close(epoll);
         return ready;
       }},
  };
  CHECK(child_waits_well(
      [](int, long ms) -> long {
        const timespec limit{ms / 1000, ms % 1000 * 1'000'000};
        return nanosleep(&limit, nullptr);
      },
      1000, false));
  for (const auto& [name, call] : calls) {
    const bool ends = child_waits_well(call, 1000, false);
    const bool hears = child_waits_well(call, 20000, true);
    if (!ends || !hears)
      fprintf(stderr, "%s: its end is%s right, becoming ready is%s\n", name, ends ? "" : " not",
              hears ? "" : " not");
    CHECK(ends && hears);
  }
}

/// Sleeps, is moved `moves` times meanwhile, and is woken up by a signal at the end: whether it is told right then what
/// was left. By that it slept until the signal was sent, about (a loaded machine takes its time), and not longer than
/// until now; what comes after it, a move perhaps, is no part of the sleep. Memory for the rest that exists only since the last move is not known at every place.
using Sleep = std::function<int(const timespec*, timespec*)>;
bool child_is_told_rest(const Sleep& sleep, int moves) {
  constexpr time_t kLimitSeconds = 1000;
  fflush(stdout);
  int line[2];
  CHECK_EQ(pipe(line), 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    Handler handler(SIGUSR1, count);
    handled = 0;
    move_point();
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* rest = static_cast<timespec*>(page);
    *rest = {kLimitSeconds + 1, 0};
    const timespec limit{kLimitSeconds, 0};
    const double begun = check::seconds_of(CLOCK_MONOTONIC);
    if (write(line[1], "!", 1) != 1) _exit(2);
    const int result = sleep(&limit, rest);
    const double end = check::seconds_of(CLOCK_MONOTONIC);
    const double told = begun + static_cast<double>(kLimitSeconds) - static_cast<double>(rest->tv_sec) -
                        static_cast<double>(rest->tv_nsec) / 1e9;
    if (result != -EINTR || told > end)
      fprintf(stderr, "%d after %.3f s, told were %.3f s\n", result, end - begun, told - begun);
    if (write(line[1], &told, sizeof told) != sizeof told) _exit(2);
    _exit(result == -EINTR && told <= end && handled == 1 ? 0 : 1);
  }
  close(line[1]);
  char begun = 0;
  CHECK_EQ(read(line[0], &begun, 1), 1);
  for (int i = 0; i <= moves; ++i) {
    timespec pause{0, 150'000'000};
    nanosleep(&pause, nullptr);
    if (i < moves) move_point_of(child);
  }
  const double sent = check::seconds_of(CLOCK_MONOTONIC);
  CHECK_EQ(kill(child, SIGUSR1), 0);
  double told = 0;
  CHECK_EQ(read(line[0], &told, sizeof told), static_cast<ssize_t>(sizeof told));
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  close(line[0]);
  const bool until_signal = told > sent - 0.4;
  if (!until_signal) fprintf(stderr, "told to have slept until %.3f s before the signal\n", sent - told);
  return status == 0 && until_signal;
}

void sleeps_tell_what_is_left() {
  const std::pair<const char*, Sleep> sleeps[] = {
      {"nanosleep",
       [](const timespec* limit, timespec* rest) { return nanosleep(limit, rest) == 0 ? 0 : -errno; }},
      {"clock_nanosleep", [](const timespec* limit,
                             timespec* rest) { return -clock_nanosleep(CLOCK_MONOTONIC, 0, limit, rest); }},
      // Most libcs load the number right before the instruction, but not all.
      {"nanosleep with its number loaded early",
       [](const timespec* limit, timespec* rest) {
         long result;
         asm volatile("mov %1, %%rax\n\tnop\n\tsyscall"
                      : "=&a"(result)
                      : "r"(long{SYS_nanosleep}), "D"(limit), "S"(rest)
                      : "rcx", "r11", "memory");
         return static_cast<int>(result);
       }},
  };
  for (const auto& [name, sleep] : sleeps)
    for (int moves = 0; moves < 5; ++moves) {
      const bool right = child_is_told_rest(sleep, moves);
      if (!right) fprintf(stderr, "%s, after %d moves: its rest is not right\n", name, moves);
      CHECK(right);
    }
}

pid_t to_be_met = 0;
int to_be_read = -1;
double signal_sent = 0;

/// However a signal and a move fall together: a call that waits was begun before both, so it ends. What could be read
/// comes later, and is not met first.
void a_signal_during_a_move_is_met() {
  constexpr int kDelaysMs = 60;
  struct Met {
    int result, error, handled;
    double begun;
  };
  int line[2], data[2];
  CHECK_EQ(pipe(line), 0);
  CHECK_EQ(pipe(data), 0);
  fflush(stdout);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    Handler handler(SIGUSR1, count);
    for (int i = 0; i < kDelaysMs; ++i) {
      handled = 0;
      if (write(line[1], "!", 1) != 1) _exit(2);
      fd_set set;
      FD_ZERO(&set);
      FD_SET(data[0], &set);
      Met told{0, 0, 0, check::seconds_of(CLOCK_MONOTONIC)};
      told.result = select(data[0] + 1, &set, nullptr, nullptr, nullptr);
      told.error = errno;
      told.handled = handled;
      char byte;
      if (read(data[0], &byte, 1) != 1 || write(line[1], &told, sizeof told) != sizeof told) _exit(3);
    }
    _exit(0);
  }
  to_be_met = child;
  to_be_read = data[1];
  Handler handler(
      SIGALRM,
      [](int) {
        signal_sent = check::seconds_of(CLOCK_MONOTONIC);
        kill(to_be_met, SIGUSR1);
        const timespec pause{0, 10'000'000};
        nanosleep(&pause, nullptr);
        if (write(to_be_read, "x", 1) != 1) _exit(9);
      },
      SA_RESTART);
  for (int delay_ms = 1; delay_ms <= kDelaysMs; ++delay_ms) {
    char begins = 0;
    CHECK_EQ(read(line[0], &begins, 1), 1);
    const timespec pause{0, 20'000'000};  // until it waits
    nanosleep(&pause, nullptr);
    const itimerval once{{0, 0}, {0, delay_ms * 1000}};
    CHECK_EQ(setitimer(ITIMER_REAL, &once, nullptr), 0);
    move_point_of(child);
    Met told{};
    CHECK_EQ(read(line[0], &told, sizeof told), static_cast<ssize_t>(sizeof told));
    // Who is moved by others too may have been stopped between its look at the clock and its call.
    const bool met = told.result == -1 && told.error == EINTR && told.handled == 1;
    if (!met && move_point_fd() >= 0 && signal_sent > told.begun + 0.01)
      check::differs(
          __FILE__, __LINE__,
          "a signal " + std::to_string(delay_ms) + " ms after the begin of a move: its handler has run " +
              std::to_string(told.handled) + " times, the call gave " + std::to_string(told.result));
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  for (int fd : {line[0], line[1], data[0], data[1]}) close(fd);
}

/// However a stop and a move fall together: the process stops, its parent hears of it, and it goes on when it is told
/// to, wherever it is by then.
void a_stop_during_a_move_is_met() {
  constexpr int kDelaysMs = 60;
  int there[2], back[2];
  CHECK_EQ(pipe(there), 0);
  CHECK_EQ(pipe(back), 0);
  fflush(stdout);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    close(there[1]);
    for (char byte; read(there[0], &byte, 1) == 1;)
      if (write(back[1], &byte, 1) != 1) _exit(2);
    _exit(0);
  }
  close(there[0]);
  to_be_met = child;
  Handler handler(
      SIGALRM, [](int) { kill(to_be_met, SIGSTOP); }, SA_RESTART);
  for (int delay_ms = 1; delay_ms <= kDelaysMs; ++delay_ms) {
    const itimerval once{{0, 0}, {0, delay_ms * 1000}};
    CHECK_EQ(setitimer(ITIMER_REAL, &once, nullptr), 0);
    move_point_of(child);
    int status = 0;
    CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    char byte = static_cast<char>(delay_ms);
    CHECK_EQ(write(there[1], &byte, 1), 1);
    pollfd answer{back[0], POLLIN, 0};
    CHECK_EQ(poll(&answer, 1, 5), 0);
    CHECK_EQ(kill(child, SIGCONT), 0);
    CHECK_EQ(waitpid(child, &status, WCONTINUED), child);
    CHECK(WIFCONTINUED(status));
    CHECK_EQ(read(back[0], &byte, 1), 1);
    CHECK_EQ(static_cast<int>(byte), delay_ms);
  }
  close(there[1]);
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  for (int fd : {back[0], back[1]}) close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"blocked-calls-are-interrupted", blocked_calls_are_interrupted},
                     {"calls-go-on-after-a-handler", calls_go_on_after_a_handler},
                     {"interrupted-transfer-is-partial", interrupted_transfer_is_partial},
                     {"time-limits-last-over-moves", time_limits_last_over_moves},
                     {"sleeps-tell-what-is-left", sleeps_tell_what_is_left},
                     {"a-signal-during-a-move-is-met", a_signal_during_a_move_is_met},
                     {"a-stop-during-a-move-is-met", a_stop_during_a_move_is_met}});
}
