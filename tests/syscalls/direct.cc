// Calls made by way of the agent, without a trap, wherever this program happens to be away; the same ones made in the
// ordinary way elsewhere. It knows of mosix only how to ask for that way (libmosix/common/query.h): at home the question
// has no answer, and natively neither. Every check is about what a program sees of its calls, however they are made.
// MOSIX_TEST_DIRECT names the number of calls that have to be made directly.
#include <sched.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "libmosix/common/direct_call.h"
#include "libmosix/common/query.h"
#include "signal_tools.h"

namespace {

thread_local long entry = 0;  ///< where direct calls of this thread go; <= 0: not asked yet, or none
thread_local int refused = 0;
std::atomic<long> known_entry{0};
std::atomic<long> made{0};

/// The process has come home, where there is nothing at the entry: as if it had refused.
void no_entry(int, siginfo_t* info, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const bool is_entry =
      registers[REG_RIP] == known_entry && reinterpret_cast<long>(info->si_addr) == known_entry;
  if (!is_entry) {
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  auto* top = reinterpret_cast<long long*>(registers[REG_RSP]);
  registers[REG_RIP] = *top;
  registers[REG_RSP] += 8;
  registers[REG_RCX] = 1;
}

void ask_for_entry() {
  entry = syscall(mosix::kQueryDirect);
  if (entry > 0) known_entry = entry;
  refused = 0;
}

long finished(long result) {
  if (result < 0 && result > -4096) {
    errno = static_cast<int>(-result);
    return -1;
  }
  return result;
}

/// syscall(2), by the direct way where there is one.
long direct(long number, long a = 0, long b = 0, long c = 0) {
  // Moved, it has to ask anew; not at each call, for most places have none.
  if (entry <= 0 && ++refused % 16 == 1) ask_for_entry();
  if (entry > 0) {
    const auto reply = mosix::direct_call(entry, number, static_cast<uint64_t>(a), static_cast<uint64_t>(b),
                                          static_cast<uint64_t>(c));
    if (reply.made) {
      ++made;
      return finished(reply.result);
    }
    if (++refused % 64 == 0) entry = 0;
  }
  return syscall(number, a, b, c);
}

/// For the lifetime of a check.
class Away {
 public:
  Away() : handler_(SIGSEGV, no_entry, SA_NODEFER) { ask_for_entry(); }

 private:
  Handler handler_;
};

void results_are_the_same() {
  Away away;
  for (int i = 0; i < 300; ++i) {
    CHECK_EQ(direct(SYS_getppid), static_cast<long>(getppid()));
    CHECK_EQ(direct(SYS_getpgid, 0), static_cast<long>(getpgrp()));
    CHECK_FAILS(direct(SYS_close, 9999), EBADF);
    CHECK_FAILS(direct(SYS_getpgid, -1), ESRCH);
    if (i % 100 == 0) move_point();
  }
}

void descriptors_follow() {
  Away away;
  check::Scratch scratch;
  const int file = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(file >= 0);
  CHECK_EQ(write(file, "0123456789", 10), 10);
  for (long i = 0; i < 200; ++i) {
    CHECK_EQ(direct(SYS_lseek, file, i, SEEK_SET), i);
    CHECK_EQ(lseek(file, 0, SEEK_CUR), i);
    const long copy = direct(SYS_dup, file);
    CHECK(copy > file);
    CHECK_EQ(direct(SYS_lseek, copy, 0, SEEK_CUR), i);
    CHECK_EQ(direct(SYS_close, copy), 0L);
    CHECK_FAILS(direct(SYS_lseek, copy, 0, SEEK_CUR), EBADF);
    if (i % 50 == 0) move_point();
  }
  close(file);
}

void own_signals_come_before_the_call_returns() {
  Away away;
  Handler handler(SIGUSR1, count);
  handled = 0;
  for (int i = 1; i <= 100; ++i) {
    CHECK_EQ(direct(SYS_kill, getpid(), SIGUSR1), 0L);
    CHECK_EQ(handled, i);
    CHECK_EQ(direct(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1), 0L);
    CHECK_EQ(handled, ++i);
    if (i % 50 == 0) move_point();
  }
}

void signals_meet_a_stream_of_calls() {
  Away away;
  const long parent = getppid();
  long calls = 0;
  {
    Knocking knocking(3, SA_RESTART);
    while (handled < 60) {
      CHECK_EQ(direct(SYS_getppid), parent);
      ++calls;
    }
  }
  CHECK(calls > 0);
}

/// A handler that makes direct calls itself.
void handlers_call_too() {
  Away away;
  static long parent;
  parent = getppid();
  static std::atomic<int> wrong;
  wrong = 0;
  Handler handler(SIGUSR2, [](int) {
    handled = handled + 1;
    for (int i = 0; i < 5; ++i) wrong += direct(SYS_getppid) != parent;
  });
  handled = 0;
  std::thread sender([self = pthread_self()] {
    for (int i = 0; i < 50; ++i) {
      pthread_kill(self, SIGUSR2);
      while (handled <= i) sched_yield();
    }
  });
  while (handled < 50) CHECK_EQ(direct(SYS_getppid), parent);
  sender.join();
  CHECK_EQ(wrong.load(), 0);
}

void calls_that_wait() {
  Away away;
  Handler handler(SIGALRM, count);
  for (int i = 0; i < 4; ++i) {
    handled = 0;
    const itimerval soon{{0, 20000}, {0, 20000}};
    CHECK_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
    CHECK_FAILS(direct(SYS_pause), EINTR);
    const itimerval none{};
    CHECK_EQ(setitimer(ITIMER_REAL, &none, nullptr), 0);
    CHECK(handled > 0);
  }
  // A lock that another one holds for a while.
  check::Scratch scratch;
  const int file = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  const int status = check::in_child([] {
    const int own = open("lock", O_RDWR | O_CLOEXEC);
    if (flock(own, LOCK_EX) != 0 || symlink("x", "locked") != 0) return 1;
    const pid_t pid = fork();
    if (pid != 0) return pid > 0 ? 0 : 1;
    usleep(100000);
    symlink("x", "over");
    _exit(0);  // and with it the lock goes
  });
  CHECK_EQ(status, 0);
  CHECK_EQ(direct(SYS_flock, file, LOCK_EX), 0L);
  char target[4];
  CHECK_EQ(readlink("over", target, sizeof target), 1);
  close(file);
}

void threads_have_their_own() {
  Away away;
  const long parent = getppid();
  std::atomic<int> wrong{0};
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 5; ++i)
      threads.emplace_back([&] {
        for (int call = 0; call < 150; ++call) wrong += direct(SYS_getppid) != parent;
      });
    for (int call = 0; call < 150; ++call) wrong += direct(SYS_getpgid, 0) != getpgrp();
    for (std::thread& thread : threads) thread.join();
    move_point();
  }
  CHECK_EQ(wrong.load(), 0);
}

/// Also by one that has been alone until now, and finds itself in company.
void who_calls_is_known() {
  Away away;
  for (int i = 0; i < 20; ++i) CHECK_EQ(direct(SYS_getppid), static_cast<long>(getppid()));
  std::atomic<int> wrong{0};
  const pid_t self = getpid();
  const pid_t child = vfork();
  if (child == 0) {
    for (int call = 0; call < 40; ++call) wrong += direct(SYS_getppid) != self;
    ask_for_entry();
    for (int call = 0; call < 40; ++call) wrong += direct(SYS_getppid) != self;
    _exit(0);
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(wrong.load(), 0);
  for (int i = 0; i < 20; ++i) CHECK_EQ(direct(SYS_getppid), static_cast<long>(getppid()));
  move_point();
  ask_for_entry();
  // Niceness is a thread's own.
  const long before = direct(SYS_getpriority, PRIO_PROCESS, 0);
  std::thread([&] {
    wrong += syscall(SYS_setpriority, PRIO_PROCESS, 0, 20 - before + 1) != 0;
    for (int call = 0; call < 40; ++call) wrong += direct(SYS_getpriority, PRIO_PROCESS, 0) != before - 1;
  }).join();
  CHECK_EQ(wrong.load(), 0);
  for (int i = 0; i < 20; ++i) CHECK_EQ(direct(SYS_getpriority, PRIO_PROCESS, 0), before);
}

void children_get_their_own() {
  Away away;
  for (int i = 0; i < 6; ++i) {
    const pid_t parent = getpid();
    const int status = check::in_child([parent] {
      for (int call = 0; call < 40; ++call)
        if (direct(SYS_getppid) != parent) return 1;
      ask_for_entry();
      for (int call = 0; call < 40; ++call)
        if (direct(SYS_getppid) != parent) return 2;
      return 0;
    });
    CHECK_EQ(status, 0);
    CHECK_EQ(direct(SYS_getppid), static_cast<long>(getppid()));
    if (i % 2 == 0) move_point();
  }
}

/// SIGPROF is sent by the kernel where the time is used, at any moment.
void profiling_goes_on() {
  Away away;
  const long parent = getppid();
  for (int i = 0; i < 50; ++i) CHECK_EQ(direct(SYS_getppid), parent);
  Handler handler(SIGPROF, count, SA_RESTART);
  handled = 0;
  const itimerval each{{0, 5000}, {0, 5000}};
  CHECK_EQ(setitimer(ITIMER_PROF, &each, nullptr), 0);
  const double begun = check::seconds_of(CLOCK_MONOTONIC);
  while (handled < 10 && check::seconds_of(CLOCK_MONOTONIC) - begun < 20) {
    CHECK_EQ(direct(SYS_getppid), parent);
    for (volatile int spin = 0; spin < 20000;) spin = spin + 1;
  }
  const itimerval none{};
  CHECK_EQ(setitimer(ITIMER_PROF, &none, nullptr), 0);
  CHECK(handled >= 10);
}

}  // namespace

int main(int argc, char** argv) {
  const int status =
      check::run(argc, argv,
                 {{"results-are-the-same", results_are_the_same},
                  {"descriptors-follow", descriptors_follow},
                  {"own-signals-come-before-the-call-returns", own_signals_come_before_the_call_returns},
                  {"signals-meet-a-stream-of-calls", signals_meet_a_stream_of_calls},
                  {"handlers-call-too", handlers_call_too},
                  {"calls-that-wait", calls_that_wait},
                  {"threads-have-their-own", threads_have_their_own},
                  {"who-calls-is-known", who_calls_is_known},
                  {"children-get-their-own", children_get_their_own},
                  {"profiling-goes-on", profiling_goes_on}});
  // Where the harness knows that there is a direct way, it must have been taken.
  const char* wanted = getenv("MOSIX_TEST_DIRECT");
  if (wanted == nullptr || made >= atol(wanted)) return status;
  fprintf(stderr, "only %ld calls were made directly\n", made.load());
  return 1;
}
