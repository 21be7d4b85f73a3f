// Time: clocks that never go back, sleeps that last, timers of all kinds. Nothing that depends on the clock
// is printed; limits are lower bounds, because a loaded machine may always be late.
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>

#include <thread>

#include "check.h"

namespace {

constexpr long kMilli = 1000000;

double now(clockid_t clock = CLOCK_MONOTONIC) { return check::seconds_of(clock); }

/// Processor time spent on other nodes does not count at home, where a process that is moved may be by now:
/// what home's kernel says there is what it has seen. These two clocks are not compared over moves.
bool of_processor(clockid_t clock) {
  return clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}
bool is_moved() { return getenv("MOSIX_TEST_LAST") != nullptr || move_point_fd() >= 0; }

void clocks_never_go_back() {
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_REALTIME,
                          CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID}) {
    double last = now(clock);
    for (int i = 0; i < 3000; ++i) {
      const double next = now(clock);
      if (next < last && !(of_processor(clock) && is_moved()))
        check::differs(__FILE__, __LINE__, "clock " + std::to_string(clock) + " went back");
      last = next;
    }
    move_point();
    if (!of_processor(clock) && now(clock) < last)
      check::differs(__FILE__, __LINE__, "clock " + std::to_string(clock) + " went back over a move");
  }
}

/// A thread that does nothing but read clocks is stopped in the middle of reading one, wherever it is stopped.
void reading_without_end() {
  const double begun = now(CLOCK_MONOTONIC);
  for (double last = begun; last < begun + 0.3;) {
    const double next = now(CLOCK_MONOTONIC);
    CHECK(next >= last && next < last + 20);
    last = next;
  }
}

void clocks_agree() {
  // The same clock by libc's fast way and by the kernel's call.
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    timespec by_call{};
    const double before = now(clock);
    CHECK_EQ(syscall(SYS_clock_gettime, clock, &by_call), 0);
    const double between = static_cast<double>(by_call.tv_sec) + static_cast<double>(by_call.tv_nsec) * 1e-9;
    const double after = now(clock);
    // A double holds some hundred nanoseconds of real time.
    CHECK(between >= before - 1e-6);
    CHECK(between <= after + 1e-6);
  }
  timeval day{};
  CHECK_EQ(gettimeofday(&day, nullptr), 0);
  const double seconds =
      now(CLOCK_REALTIME) - (static_cast<double>(day.tv_sec) + static_cast<double>(day.tv_usec) * 1e-6);
  CHECK(seconds >= 0 && seconds < 5);
  CHECK(time(nullptr) - day.tv_sec <= 5);
  timespec resolution{};
  CHECK_EQ(clock_getres(CLOCK_MONOTONIC, &resolution), 0);
  CHECK_EQ(resolution.tv_nsec, 1L);
  CHECK_FAILS(clock_gettime(static_cast<clockid_t>(77), &resolution), EINVAL);
}

void parent_and_child_share_the_clock() {
  const double before = now();
  int line[2];
  CHECK_EQ(pipe(line), 0);
  CHECK_EQ(check::in_child([&] {
             const double inside = now();
             return write(line[1], &inside, sizeof inside) == sizeof inside ? 0 : 1;
           }),
           0);
  double inside = 0;
  CHECK_EQ(read(line[0], &inside, sizeof inside), static_cast<ssize_t>(sizeof inside));
  CHECK(inside >= before);
  CHECK(now() >= inside);
  close(line[0]);
  close(line[1]);
}

void sleeps_last() {
  const timespec wait{0, 60 * kMilli};
  double start = now();
  CHECK_EQ(nanosleep(&wait, nullptr), 0);
  CHECK(now() - start >= 0.060);
  start = now();
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &wait, nullptr), 0);
  CHECK(now() - start >= 0.060);
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += 60 * kMilli;
  if (until.tv_nsec >= 1000 * kMilli) {
    until.tv_nsec -= 1000 * kMilli;
    ++until.tv_sec;
  }
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr), 0);
  timespec after{};
  clock_gettime(CLOCK_MONOTONIC, &after);
  CHECK(after.tv_sec > until.tv_sec || (after.tv_sec == until.tv_sec && after.tv_nsec >= until.tv_nsec));
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += until.tv_nsec >= 940 * kMilli ? 1 : 0;
  until.tv_nsec = (until.tv_nsec + 60 * kMilli) % (1000 * kMilli);
  CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr), 0);
  const timespec bad{0, 2000000000};
  CHECK_FAILS(nanosleep(&bad, nullptr), EINVAL);
  const timespec past{1, 0};
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, nullptr), 0);
}

void a_long_sleep_is_not_shortened() {
  // Long enough to be moved several times while it lasts.
  const double start = now();
  const timespec wait{0, 900 * kMilli};
  CHECK_EQ(nanosleep(&wait, nullptr), 0);
  const double lasted = now() - start;
  CHECK(lasted >= 0.900);
  CHECK(lasted < 30);
}

void timer_descriptors() {
  const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  CHECK(timer >= 0);
  uint64_t times = 0;
  CHECK_FAILS(read(timer, &times, sizeof times), EAGAIN);
  const itimerspec soon{{0, 20 * kMilli}, {0, 20 * kMilli}};
  const double start = now();
  CHECK_EQ(timerfd_settime(timer, 0, &soon, nullptr), 0);
  uint64_t total = 0;
  pollfd watch{timer, POLLIN, 0};
  while (total < 5) {
    CHECK_EQ(poll(&watch, 1, -1), 1);
    if (total == 2) move_point();
    CHECK_EQ(read(timer, &times, sizeof times), static_cast<ssize_t>(sizeof times));
    CHECK(times >= 1);
    total += times;
  }
  CHECK(now() - start >= 0.100);
  itimerspec left{};
  CHECK_EQ(timerfd_gettime(timer, &left), 0);
  CHECK_EQ(left.it_interval.tv_nsec, 20 * kMilli);
  const itimerspec none{};
  CHECK_EQ(timerfd_settime(timer, 0, &none, &left), 0);
  CHECK_EQ(timerfd_gettime(timer, &left), 0);
  CHECK_EQ(left.it_value.tv_sec + left.it_value.tv_nsec, 0L);
  close(timer);
  // Against an absolute time of the monotonic clock, which the program itself reads.
  const int absolute = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  itimerspec when{};
  clock_gettime(CLOCK_MONOTONIC, &when.it_value);
  when.it_value.tv_sec += 1;
  const double goal = now() + 1;
  CHECK_EQ(timerfd_settime(absolute, TFD_TIMER_ABSTIME, &when, nullptr), 0);
  CHECK_EQ(read(absolute, &times, sizeof times), static_cast<ssize_t>(sizeof times));
  CHECK(now() >= goal - 0.001);
  CHECK(now() < goal + 20);
  close(absolute);
}

volatile sig_atomic_t fired = 0;
volatile sig_atomic_t value_seen = 0;

void timers_send_signals() {
  struct sigaction action {
  }, before{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (info->si_code == SI_TIMER) value_seen = info->si_value.sival_int;
    fired = fired + 1;
  };
  const int number = SIGRTMIN + 4;
  CHECK_EQ(sigaction(number, &action, &before), 0);
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, number);
  sigprocmask(SIG_BLOCK, &set, &old);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = number;
  event.sigev_value.sival_int = 1234;
  timer_t timer{};
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  const itimerspec each{{0, 15 * kMilli}, {0, 15 * kMilli}};
  CHECK_EQ(timer_settime(timer, 0, &each, nullptr), 0);
  move_point();
  while (fired < 4) sigsuspend(&old);
  CHECK_EQ(static_cast<int>(value_seen), 1234);
  itimerspec left{};
  CHECK_EQ(timer_gettime(timer, &left), 0);
  CHECK_EQ(left.it_interval.tv_nsec, 15 * kMilli);
  CHECK(timer_getoverrun(timer) >= 0);
  CHECK_EQ(timer_delete(timer), 0);
  CHECK_FAILS(syscall(SYS_timer_delete, 12345), EINVAL);
  sigprocmask(SIG_SETMASK, &old, nullptr);
  sigaction(number, &before, nullptr);
}

void burn(double seconds) {
  const double until = now(CLOCK_THREAD_CPUTIME_ID) + seconds;
  while (now(CLOCK_THREAD_CPUTIME_ID) < until) {
  }
}

void processor_time_is_counted() {
  const double process = now(CLOCK_PROCESS_CPUTIME_ID), thread = now(CLOCK_THREAD_CPUTIME_ID);
  rusage before{}, after{};
  CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
  const clock_t ticks = clock();
  burn(0.15);
  move_point();
  burn(0.15);
  if (is_moved()) return;
  CHECK(now(CLOCK_PROCESS_CPUTIME_ID) - process >= 0.3);
  CHECK(now(CLOCK_THREAD_CPUTIME_ID) - thread >= 0.3);
  CHECK(static_cast<double>(clock() - ticks) / CLOCKS_PER_SEC >= 0.299);
  CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
  auto seconds = [](const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  };
  CHECK(seconds(after) - seconds(before) >= 0.29);
  tms counted{};
  CHECK(times(&counted) != static_cast<clock_t>(-1));
  CHECK(counted.tms_utime + counted.tms_stime >=
        static_cast<clock_t>(0.2 * static_cast<double>(sysconf(_SC_CLK_TCK))));
  // A thread that only waits uses none.
  double waited = 1;
  std::thread([&] {
    const double start = now(CLOCK_THREAD_CPUTIME_ID);
    const timespec wait{0, 200 * kMilli};
    nanosleep(&wait, nullptr);
    waited = now(CLOCK_THREAD_CPUTIME_ID) - start;
  }).join();
  CHECK(waited < 0.1);
}

void time_zones_come_from_files() {
  setenv("TZ", "UTC-5", 1);
  tzset();
  tm parts{};
  const time_t moment = 1000000000;
  localtime_r(&moment, &parts);
  char text[64];
  CHECK(strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts) > 0);
  CHECK_EQ(std::string(text), "2001-09-09 06:46:40");
  unsetenv("TZ");
  tzset();
}

}  // namespace

int main(int argc, char** argv) {
  return check::run(argc, argv,
                    {{"clocks-never-go-back", clocks_never_go_back},
                     {"reading-without-end", reading_without_end},
                     {"clocks-agree", clocks_agree},
                     {"parent-and-child-share-the-clock", parent_and_child_share_the_clock},
                     {"sleeps-last", sleeps_last},
                     {"a-long-sleep-is-not-shortened", a_long_sleep_is_not_shortened},
                     {"timer-descriptors", timer_descriptors},
                     {"timers-send-signals", timers_send_signals},
                     {"processor-time-is-counted", processor_time_is_counted},
                     {"time-zones-come-from-files", time_zones_come_from_files}});
}
