// Signals: handlers and their flags, masks, queued values, waiting for signals, timers, and what parents and
// children tell each other.
#include <poll.h>
#include <semaphore.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

#include <memory>
#include <thread>
#include <vector>

#include "signal_tools.h"

namespace {

sigset_t pending() {
  sigset_t set;
  CHECK_EQ(sigpending(&set), 0);
  return set;
}

void raise_runs_the_handler_at_once() {
  Handler handler(SIGUSR1, count);
  handled = 0;
  for (int i = 1; i <= 100; ++i) {
    CHECK_EQ(raise(SIGUSR1), 0);
    CHECK_EQ(static_cast<int>(handled), i);
    if (i == 50) move_point();
  }
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  CHECK_EQ(static_cast<int>(handled), 101);
}

void information_comes_along() {
  Handler handler(SIGUSR1, count_with_info);
  handled = 0;
  CHECK_EQ(kill(getpid(), SIGUSR1), 0);
  CHECK_EQ(last_info.si_signo, SIGUSR1);
  CHECK_EQ(last_info.si_code, SI_USER);
  CHECK_EQ(last_info.si_pid, getpid());
  CHECK_EQ(last_info.si_uid, getuid());
  CHECK_EQ(raise(SIGUSR1), 0);
  CHECK_EQ(last_info.si_code, SI_TKILL);
  CHECK_EQ(last_info.si_pid, getpid());
  sigval value{};
  value.sival_int = 4242;
  CHECK_EQ(sigqueue(getpid(), SIGUSR1, value), 0);
  CHECK_EQ(last_info.si_code, SI_QUEUE);
  CHECK_EQ(last_info.si_value.sival_int, 4242);
  CHECK_EQ(static_cast<int>(handled), 3);
}

void realtime_signals_queue_in_order() {
  static std::vector<int> values;
  values.clear();
  auto note = [](int number, siginfo_t* info, void*) {
    values.push_back((number - SIGRTMIN) * 100 + info->si_value.sival_int);
  };
  Handler first(SIGRTMIN + 1, note), second(SIGRTMIN + 2, note);
  {
    Blocked blocked({SIGRTMIN + 1, SIGRTMIN + 2});
    for (int i = 0; i < 5; ++i) {
      sigval value{};
      value.sival_int = i;
      CHECK_EQ(sigqueue(getpid(), SIGRTMIN + 1 + (i & 1), value), 0);
    }
    const sigset_t waiting = pending();
    CHECK(sigismember(&waiting, SIGRTMIN + 1));
    CHECK(sigismember(&waiting, SIGRTMIN + 2));
    CHECK(values.empty());
    move_point();
    CHECK(values.empty());
  }
  // Handlers of the later-delivered run first where several are taken at once, so compare by number.
  std::vector<int> ones, twos;
  for (int value : values) (value / 100 == 1 ? ones : twos).push_back(value % 100);
  CHECK(ones == std::vector<int>({0, 2, 4}));
  CHECK(twos == std::vector<int>({1, 3}));
}

void standard_signals_merge() {
  Handler handler(SIGUSR2, count);
  handled = 0;
  {
    Blocked blocked({SIGUSR2});
    for (int i = 0; i < 10; ++i) CHECK_EQ(kill(getpid(), SIGUSR2), 0);
    CHECK_EQ(static_cast<int>(handled), 0);
    move_point();
    const sigset_t waiting = pending();
    CHECK(sigismember(&waiting, SIGUSR2));
  }
  CHECK_EQ(static_cast<int>(handled), 1);
  const sigset_t none = pending();
  CHECK(!sigismember(&none, SIGUSR2));
}

void masks_while_handling() {
  static bool own, other, nested;
  own = other = nested = false;
  struct sigaction action {};
  action.sa_handler = [](int) {
    sigset_t now;
    sigprocmask(SIG_BLOCK, nullptr, &now);
    own = sigismember(&now, SIGUSR1);
    other = sigismember(&now, SIGUSR2);
  };
  sigaddset(&action.sa_mask, SIGUSR2);
  struct sigaction before {};
  CHECK_EQ(sigaction(SIGUSR1, &action, &before), 0);
  raise(SIGUSR1);
  CHECK(own);
  CHECK(other);
  action.sa_flags = SA_NODEFER;
  sigemptyset(&action.sa_mask);
  CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  raise(SIGUSR1);
  CHECK(!own);
  CHECK(!other);
  // With SA_NODEFER a handler may interrupt itself.
  static int depth, deepest;
  depth = deepest = 0;
  action.sa_handler = [](int) {
    ++depth;
    if (depth > deepest) deepest = depth;
    if (depth < 5) raise(SIGUSR1);
    --depth;
  };
  CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  raise(SIGUSR1);
  CHECK_EQ(deepest, 5);
  struct sigaction read_back {};
  CHECK_EQ(sigaction(SIGUSR1, nullptr, &read_back), 0);
  CHECK_EQ(read_back.sa_flags & SA_NODEFER, static_cast<int>(SA_NODEFER));
  CHECK(read_back.sa_handler == action.sa_handler);
  sigaction(SIGUSR1, &before, nullptr);
  sigset_t after;
  sigprocmask(SIG_BLOCK, nullptr, &after);
  CHECK(!sigismember(&after, SIGUSR1));
}

void handler_that_resets_itself() {
  Handler handler(SIGUSR1, count, static_cast<int>(SA_RESETHAND));
  handled = 0;
  raise(SIGUSR1);
  CHECK_EQ(static_cast<int>(handled), 1);
  struct sigaction now {};
  CHECK_EQ(sigaction(SIGUSR1, nullptr, &now), 0);
  CHECK(now.sa_handler == SIG_DFL);
  CHECK_EQ(check::in_child([] {
             raise(SIGUSR1);
             return 0;
           }),
           SIGUSR1);
}

void handler_on_its_own_stack() {
  static char* low = nullptr;
  static char* high = nullptr;
  static bool inside, says_so;
  const size_t size = 65536;
  low = static_cast<char*>(malloc(size));
  high = low + size;
  stack_t stack{}, before{};
  stack.ss_sp = low;
  stack.ss_size = size;
  CHECK_EQ(sigaltstack(&stack, &before), 0);
  {
    Handler handler(
        SIGUSR1,
        [](int) {
          char here;
          char* at = reinterpret_cast<char*>(__builtin_frame_address(0));
          (void)here;
          inside = at >= low && at < high;
          stack_t now{};
          sigaltstack(nullptr, &now);
          says_so = now.ss_flags & SS_ONSTACK;
        },
        SA_ONSTACK);
    move_point();
    raise(SIGUSR1);
    CHECK(inside);
    CHECK(says_so);
    stack_t now{};
    CHECK_EQ(sigaltstack(nullptr, &now), 0);
    CHECK(now.ss_sp == low);
    CHECK_EQ(now.ss_size, size);
    CHECK_EQ(now.ss_flags, 0);
  }
  before.ss_flags |= before.ss_sp ? 0 : SS_DISABLE;
  CHECK_EQ(sigaltstack(&before, nullptr), 0);
  free(low);
}

void ignored_and_default() {
  signal(SIGUSR1, SIG_IGN);
  CHECK_EQ(raise(SIGUSR1), 0);
  signal(SIGUSR1, SIG_DFL);
  for (int number : {SIGUSR1, SIGTERM, SIGKILL, SIGINT, SIGHUP, SIGALRM, SIGRTMIN + 3}) {
    CHECK_EQ(check::in_child([&] {
               raise(number);
               return 0;
             }),
             number);
  }
  for (int number : {SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) CHECK_EQ(raise(number), 0);
  CHECK_FAILS(syscall(SYS_rt_sigaction, SIGKILL, &last_info, nullptr, 8), EINVAL);
  CHECK_FAILS(kill(getpid(), 65), EINVAL);
  CHECK_EQ(kill(getpid(), 0), 0);
}

void suspend_waits_with_a_mask() {
  Blocked blocked({SIGUSR1, SIGALRM});
  Handler handler(SIGUSR1, count);
  handled = 0;
  kill(getpid(), SIGUSR1);
  CHECK_EQ(static_cast<int>(handled), 0);
  CHECK_FAILS(sigsuspend(blocked.before()), EINTR);
  CHECK_EQ(static_cast<int>(handled), 1);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK(sigismember(&now, SIGUSR1));
  // The same, with a signal that comes from elsewhere while we wait.
  fflush(stdout);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) _exit(kill(parent, SIGUSR1) == 0 ? 0 : 1);
  CHECK_FAILS(sigsuspend(blocked.before()), EINTR);
  CHECK_EQ(static_cast<int>(handled), 2);
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

void waiting_takes_signals_from_the_queue() {
  Blocked blocked({SIGUSR1, SIGRTMIN});
  siginfo_t info{};
  const timespec short_while{0, 20000000}, none{0, 0};
  CHECK_FAILS(sigtimedwait(blocked.set(), &info, &short_while), EAGAIN);
  sigval value{};
  value.sival_int = 7;
  CHECK_EQ(sigqueue(getpid(), SIGRTMIN, value), 0);
  kill(getpid(), SIGUSR1);
  CHECK_EQ(sigtimedwait(blocked.set(), &info, &none), SIGUSR1);
  CHECK_EQ(info.si_pid, getpid());
  CHECK_EQ(sigwaitinfo(blocked.set(), &info), SIGRTMIN);
  CHECK_EQ(info.si_value.sival_int, 7);
  CHECK_FAILS(sigtimedwait(blocked.set(), &info, &none), EAGAIN);
  raise(SIGUSR1);
  int number = 0;
  CHECK_EQ(sigwait(blocked.set(), &number), 0);
  CHECK_EQ(number, SIGUSR1);
}

void descriptor_of_signals() {
  Blocked blocked({SIGUSR1, SIGUSR2});
  const int fd = signalfd(-1, blocked.set(), SFD_NONBLOCK | SFD_CLOEXEC);
  CHECK(fd >= 0);
  signalfd_siginfo info{};
  CHECK_FAILS(read(fd, &info, sizeof info), EAGAIN);
  sigval value{};
  value.sival_int = 99;
  CHECK_EQ(sigqueue(getpid(), SIGUSR2, value), 0);
  pollfd watch{fd, POLLIN, 0};
  CHECK_EQ(poll(&watch, 1, -1), 1);
  move_point();
  CHECK_EQ(read(fd, &info, sizeof info), static_cast<ssize_t>(sizeof info));
  CHECK_EQ(info.ssi_signo, static_cast<uint32_t>(SIGUSR2));
  CHECK_EQ(info.ssi_int, 99);
  CHECK_EQ(info.ssi_pid, static_cast<uint32_t>(getpid()));
  close(fd);
}

void alarms_and_timers() {
  Handler handler(SIGALRM, count);
  handled = 0;
  CHECK_EQ(alarm(1000), 0u);
  const unsigned left = alarm(0);
  CHECK(left == 1000 || left == 999);
  const itimerval soon{{0, 0}, {0, 20000}};
  {
    // However slow we are, it does not come between the look and the wait.
    Blocked blocked({SIGALRM});
    CHECK_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
    sigset_t none;
    sigemptyset(&none);
    while (handled == 0) sigsuspend(&none);
  }
  CHECK_EQ(static_cast<int>(handled), 1);
  itimerval now{};
  CHECK_EQ(getitimer(ITIMER_REAL, &now), 0);
  CHECK_EQ(now.it_value.tv_sec + now.it_value.tv_usec, 0);
  // CPU time: fires only because this process computes.
  static volatile sig_atomic_t ticks;
  ticks = 0;
  Handler virtual_handler(SIGVTALRM, [](int) { ticks = ticks + 1; });
  const itimerval each{{0, 10000}, {0, 10000}};
  CHECK_EQ(setitimer(ITIMER_VIRTUAL, &each, nullptr), 0);
  while (ticks < 3) {
  }
  const itimerval none{};
  CHECK_EQ(setitimer(ITIMER_VIRTUAL, &none, nullptr), 0);
}

void a_computing_process_hears_signals() {
  Handler handler(SIGUSR1, count_with_info, SA_RESTART);
  handled = 0;
  const pid_t parent = getpid();
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < 20; ++i) {
      if (kill(parent, SIGUSR1) != 0) _exit(1);
      const timespec pause{0, 2000000};
      nanosleep(&pause, nullptr);
    }
    _exit(0);
  }
  volatile unsigned long turns = 0;
  while (handled < 1) turns = turns + 1;
  CHECK_EQ(last_info.si_pid, child);
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK(handled >= 1 && handled <= 20);
}

/// Timers so short that they expire while the call that sets them returns, or right after it. The process makes no
/// other call that could bring the signal along.
void a_signal_on_the_heels_of_a_call() {
  Handler handler(SIGALRM, count);
  for (int us = 1; us <= 600; ++us) {
    handled = 0;
    const itimerval soon{{0, 0}, {0, us}};
    CHECK_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
    timespec begun{}, now{};
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (now = begun; handled == 0 && now.tv_sec - begun.tv_sec < 10;) clock_gettime(CLOCK_MONOTONIC, &now);
    CHECK_EQ(static_cast<int>(handled), 1);
  }
}

/// Many signals wait when they are let through: each handler has run when the call that does so returns.
void a_volley_of_signals() {
  constexpr int kShots = 28;
  static volatile sig_atomic_t heard[kShots];
  std::vector<std::unique_ptr<Handler>> handlers;
  for (int i = 0; i < kShots; ++i) {
    handlers.push_back(std::make_unique<Handler>(SIGRTMIN + 1 + i, [](int number) {
      heard[number - SIGRTMIN - 1] = heard[number - SIGRTMIN - 1] + 1;
    }));
  }
  for (int i = 0; i < kShots; ++i) heard[i] = 0;
  sigset_t all, before;
  sigfillset(&all);
  for (int round = 1; round <= 10; ++round) {
    CHECK_EQ(sigprocmask(SIG_SETMASK, &all, &before), 0);
    for (int i = 0; i < kShots; ++i) CHECK_EQ(kill(getpid(), SIGRTMIN + 1 + i), 0);
    if (round == 5) move_point();
    CHECK_EQ(sigprocmask(SIG_SETMASK, &before, nullptr), 0);
    for (int i = 0; i < kShots; ++i) CHECK_EQ(static_cast<int>(heard[i]), round);
  }
}

void parent_and_child_signal_each_other() {
  Blocked blocked({SIGUSR1, SIGUSR2});
  const pid_t parent = getpid();
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    siginfo_t info{};
    for (int i = 0; i < 50; ++i) {
      if (sigwaitinfo(blocked.set(), &info) != SIGUSR1 || info.si_pid != parent) _exit(1);
      if (info.si_value.sival_int != i) _exit(2);
      sigval value{};
      value.sival_int = 2 * i;
      if (sigqueue(parent, SIGUSR2, value) != 0) _exit(3);
    }
    _exit(0);
  }
  siginfo_t info{};
  for (int i = 0; i < 50; ++i) {
    sigval value{};
    value.sival_int = i;
    CHECK_EQ(sigqueue(child, SIGUSR1, value), 0);
    CHECK_EQ(sigwaitinfo(blocked.set(), &info), SIGUSR2);
    CHECK_EQ(info.si_pid, child);
    CHECK_EQ(info.si_value.sival_int, 2 * i);
    if (i == 25) move_point();
  }
  int status = -1;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

void death_of_a_child_is_told() {
  Handler handler(SIGCHLD, count_with_info);
  sigset_t chld, before;
  sigemptyset(&chld);
  sigaddset(&chld, SIGCHLD);
  sigprocmask(SIG_BLOCK, &chld, &before);
  handled = 0;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) _exit(17);
  while (handled == 0) sigsuspend(&before);
  CHECK_EQ(static_cast<int>(handled), 1);
  CHECK_EQ(last_info.si_pid, child);
  CHECK_EQ(last_info.si_code, CLD_EXITED);
  CHECK_EQ(last_info.si_status, 17);
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);
    raise(SIGTERM);
  }
  while (handled == 1) sigsuspend(&before);
  CHECK_EQ(last_info.si_code, CLD_KILLED);
  CHECK_EQ(last_info.si_status, SIGTERM);
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(static_cast<int>(handled), 2);
  // Ten children, each told and reaped once.
  int reaped = 0;
  for (int i = 0; i < 10; ++i) {
    child = fork();
    if (child == 0) _exit(0);
  }
  while (reaped < 10) {
    if (waitpid(-1, &status, WNOHANG) > 0)
      ++reaped;
    else
      sigsuspend(&before);
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  CHECK(handled >= 3 && handled <= 12);
  CHECK_FAILS(waitpid(-1, &status, 0), ECHILD);
}

void moved_inside_a_handler() {
  Handler handler(SIGUSR1, [](int) {
    move_point();
    handled = handled + 1;
  });
  handled = 0;
  raise(SIGUSR1);
  CHECK_EQ(static_cast<int>(handled), 1);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK(!sigismember(&now, SIGUSR1));
}

void stopped_and_continued() {
  fflush(stdout);
  int line[2], leave[2];
  CHECK_EQ(pipe(line), 0);
  CHECK_EQ(pipe(leave), 0);
  const pid_t child = fork();
  if (child == 0) {
    raise(SIGSTOP);
    char word;
    // Its end would take the place of "continued" in the parent's wait.
    _exit(write(line[1], "on", 2) == 2 && read(leave[0], &word, 1) == 1 ? 5 : 1);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  CHECK(WIFSTOPPED(status));
  CHECK_EQ(WSTOPSIG(status), SIGSTOP);
  CHECK_EQ(kill(child, SIGCONT), 0);
  CHECK_EQ(waitpid(child, &status, WCONTINUED), child);
  CHECK(WIFCONTINUED(status));
  char text[4];
  CHECK_EQ(read(line[0], text, 4), 2);
  CHECK_EQ(write(leave[1], "!", 1), 1);
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(WEXITSTATUS(status), 5);
  for (int fd : {line[0], line[1], leave[0], leave[1]}) close(fd);
}

std::string ran;

/// Signals that are let through at once: their handlers' frames are laid one upon the other, lowest number first, so the
/// highest runs first.
void handlers_run_from_the_top() {
  static constexpr std::pair<int, char> kSignals[] = {
      {SIGUSR1, '1'}, {SIGUSR2, '2'}, {SIGTERM, 'T'}, {SIGHUP, 'H'}, {SIGALRM, 'A'}};
  std::vector<std::unique_ptr<Handler>> handlers;
  for (const auto& [number, letter] : kSignals) {
    static_assert(SIGHUP < SIGUSR1 && SIGUSR1 < SIGUSR2 && SIGUSR2 < SIGALRM && SIGALRM < SIGTERM);
    handlers.push_back(std::make_unique<Handler>(number, [](int signal) {
      for (const auto& [number, letter] : kSignals)
        if (number == signal) ran += letter;
    }));
  }
  ran.reserve(64);
  for (int way = 0; way < 3; ++way) {
    ran.clear();
    {
      Blocked blocked({SIGUSR1, SIGUSR2, SIGTERM, SIGHUP, SIGALRM});
      for (const auto& [number, letter] : kSignals) CHECK_EQ(kill(getpid(), number), 0);
      if (way == 1) CHECK_FAILS(sigsuspend(blocked.before()), EINTR);
      if (way == 2) CHECK_FAILS(ppoll(nullptr, 0, nullptr, blocked.before()), EINTR);
    }
    CHECK_EQ(ran, std::string("TA21H"));
    move_point();
  }
}

/// A signal that a thread sends to its own process is there before the thread goes on: who is woken by what the thread
/// does next has run its handler first.
void own_signals_overtake_nothing() {
  Handler handler(SIGUSR1, count, SA_RESTART);
  sem_t told, ready;
  CHECK_EQ(sem_init(&told, 0, 0), 0);
  CHECK_EQ(sem_init(&ready, 0, 0), 0);
  handled = 0;
  constexpr int kTimes = 40;
  std::thread sender([&] {
    for (int i = 0; i < kTimes; ++i) {
      // One after the other: two that wait at the same time would merge.
      while (sem_wait(&ready) != 0) continue;
      usleep(2000);  // usually the other one waits by then
      if (i % 2 == 0)
        kill(getpid(), SIGUSR1);
      else
        syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
      sem_post(&told);
    }
  });
  for (int i = 1; i <= kTimes; ++i) {
    sem_post(&ready);
    while (sem_wait(&told) != 0) CHECK_EQ(errno, EINTR);
    CHECK(handled >= i);
  }
  sender.join();
  sem_destroy(&told);
  sem_destroy(&ready);
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"raise-runs-the-handler-at-once", raise_runs_the_handler_at_once},
                     {"information-comes-along", information_comes_along},
                     {"realtime-signals-queue-in-order", realtime_signals_queue_in_order},
                     {"standard-signals-merge", standard_signals_merge},
                     {"masks-while-handling", masks_while_handling},
                     {"handler-that-resets-itself", handler_that_resets_itself},
                     {"handler-on-its-own-stack", handler_on_its_own_stack},
                     {"ignored-and-default", ignored_and_default},
                     {"suspend-waits-with-a-mask", suspend_waits_with_a_mask},
                     {"waiting-takes-signals-from-the-queue", waiting_takes_signals_from_the_queue},
                     {"descriptor-of-signals", descriptor_of_signals},
                     {"alarms-and-timers", alarms_and_timers},
                     {"a-computing-process-hears-signals", a_computing_process_hears_signals},
                     {"a-signal-on-the-heels-of-a-call", a_signal_on_the_heels_of_a_call},
                     {"a-volley-of-signals", a_volley_of_signals},
                     {"parent-and-child-signal-each-other", parent_and_child_signal_each_other},
                     {"death-of-a-child-is-told", death_of_a_child_is_told},
                     {"moved-inside-a-handler", moved_inside_a_handler},
                     {"stopped-and-continued", stopped_and_continued},
                     {"handlers-run-from-the-top", handlers_run_from_the_top},
                     {"own-signals-overtake-nothing", own_signals_overtake_nothing}});
}
