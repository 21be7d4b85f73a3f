// What the tests of libmosix/process stop, read and drive: a small program with one way of life per argument.
// It is built twice, dynamic and static. It says "ready" on standard output when it is, and answers each line
// of standard input.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

std::atomic<long> signals_handled{0};
std::atomic<long> value_sum{0};
std::atomic<long> work_done{0};

void say(const char* text) {
  if (write(1, text, strlen(text)) < 0) _exit(3);
}

void on_signal(int, siginfo_t* info, void*) {
  ++signals_handled;
  value_sum += info->si_value.sival_int;
}

void handle(int signal) {
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(signal, &action, nullptr);
}

/// Each line asks for the counts so far; the end of the input ends the program.
int answer_lines() {
  char line[64];
  for (;;) {
    ssize_t got = read(0, line, sizeof(line));
    if (got <= 0) return got == 0 ? 0 : errno;
    char text[96];
    snprintf(text, sizeof(text), "%ld %ld\n", signals_handled.load(), value_sum.load());
    say(text);
  }
}

int queue_signals() {
  handle(SIGRTMIN + 1);
  say("ready\n");
  return answer_lines();
}

int compute_in_threads(int count) {
  handle(SIGRTMIN + 1);
  std::atomic<int> started{0};
  for (int i = 0; i < count; ++i)
    std::thread([&started] {
      ++started;
      for (;;) ++work_done;
    }).detach();
  while (started != count) std::this_thread::yield();
  say("ready\n");
  return answer_lines();
}

/// Threads that live for microseconds, so that any listing of them is wrong when it is read.
int churn() {
  for (int i = 0; i < 3; ++i)
    std::thread([] {
      for (;;) std::thread([] { ++work_done; }).join();
    }).detach();
  say("ready\n");
  return answer_lines();
}

/// Sleeps in one call; a restart that is not the kernel's own would show as EINTR, as error 516, or as a
/// longer sleep.
int nap() {
  say("ready\n");
  timespec nap{0, 600'000'000}, rest{}, before{}, after{};
  clock_gettime(CLOCK_MONOTONIC, &before);
  int result = nanosleep(&nap, &rest);
  int error = errno;
  clock_gettime(CLOCK_MONOTONIC, &after);
  long slept_ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1'000'000;
  char text[96];
  snprintf(text, sizeof(text), "%d %d %d\n", result, result == 0 ? 0 : error,
           slept_ms >= 600 && slept_ms < 5000);
  say(text);
  return 0;
}

int leave_leader() {
  std::thread([] {
    say("ready\n");
    _exit(answer_lines());
  }).detach();
  pthread_exit(nullptr);
}

std::atomic<long> illegal{0}, traps{0};

/// Faults without end, and counts what its handlers are told: each fault once.
int fault() {
  struct sigaction action {};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void* context) {
    auto& rip = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
    if (info->si_code == ILL_ILLOPN && info->si_addr == reinterpret_cast<void*>(rip)) ++illegal;
    rip += 2;
  };
  sigaction(SIGILL, &action, nullptr);
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (info->si_code == SI_KERNEL) ++traps;
  };
  sigaction(SIGTRAP, &action, nullptr);
  static std::atomic<bool> wrong{false};
  std::thread([] {
    for (long round = 1;; ++round) {
      asm volatile("ud2; int3" : : : "memory");
      if (illegal != round || traps != round) wrong = true;
    }
  }).detach();
  say("ready\n");
  for (char line[64]; fgets(line, sizeof line, stdin) != nullptr;) say(wrong ? "wrong\n" : "right\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* life = argc > 1 ? argv[1] : "";
  if (strcmp(life, "signals") == 0) return queue_signals();
  if (strcmp(life, "threads") == 0) return compute_in_threads(argc > 2 ? atoi(argv[2]) : 4);
  if (strcmp(life, "churn") == 0) return churn();
  if (strcmp(life, "nap") == 0) return nap();
  if (strcmp(life, "leader") == 0) return leave_leader();
  if (strcmp(life, "fault") == 0) return fault();
  return 2;
}
