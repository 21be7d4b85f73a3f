// What the custodian's test moves: a small program with one way of life per argument. Built dynamic and
// static. Says "ready" on standard output; answers each line of standard input with how far it has come.
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

std::atomic<long> progress{0};
std::atomic<long> signals_handled{0};
std::atomic<long> faults{0};
pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
long guarded[2];

void say(const char* text) {
  if (write(1, text, strlen(text)) < 0) _exit(3);
}

void on_signal(int, siginfo_t*, void*) { ++signals_handled; }

void handle(int signal, int flags) {
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | flags;
  sigaction(signal, &action, nullptr);
}

/// Each line asks for the counts so far.
int answer_lines() {
  char line[64];
  for (;;) {
    ssize_t got = read(0, line, sizeof line);
    if (got < 0 && errno == EINTR) {
      say("interrupted\n");
      continue;
    }
    if (got <= 0) return got == 0 ? 0 : errno;
    char text[96];
    snprintf(text, sizeof text, "%ld %ld %ld\n", progress.load(), signals_handled.load(), faults.load());
    say(text);
  }
}

void* compute(void*) {
  double value = 1;
  for (;;) {
    pthread_mutex_lock(&mutex);
    if (guarded[0] != guarded[1]) ++faults;
    ++guarded[0];
    for (int i = 0; i < 100; ++i) value = value * 1.0000001 + 1e-9;
    ++guarded[1];
    pthread_mutex_unlock(&mutex);
    if (!(value >= 1)) ++faults;
    if (value > 1e6) value = 1;
    ++progress;
  }
  return nullptr;
}

/// Sleeps that must not end early, and memory that must keep its contents.
void* sleep_and_check(void*) {
  std::vector<unsigned char> memory(300'000, 7);
  for (;;) {
    timespec before{}, after{}, pause{0, 20'000'000};
    clock_gettime(CLOCK_MONOTONIC, &before);
    if (nanosleep(&pause, nullptr) != 0) ++faults;
    clock_gettime(CLOCK_MONOTONIC, &after);
    if ((after.tv_sec - before.tv_sec) * 1'000'000'000 + after.tv_nsec - before.tv_nsec < pause.tv_nsec)
      ++faults;
    for (unsigned char byte : memory)
      if (byte != 7) ++faults;
    ++progress;
  }
  return nullptr;
}

/// Each line is answered by a much longer one, more than a pipe takes at once, and by what its one write has said.
int answer_at_length() {
  std::vector<char> answer(1 << 20, 'w');
  answer.back() = '\n';
  char line[64];
  while (read(0, line, sizeof line) > 0) {
    ssize_t written = write(1, answer.data(), answer.size());
    char text[64];
    snprintf(text, sizeof text, "%zd\n", written);
    say(text);
  }
  return 0;
}

int silent_pipe[2];  // there before "ready" is said: descriptors are counted from then on

void* poll_for_ever(void*) {
  for (;;) {
    pollfd nothing{silent_pipe[0], POLLIN, 0};
    if (poll(&nothing, 1, 10) != 0) ++faults;
    ++progress;
  }
  return nullptr;
}

void start(void* (*body)(void*)) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, body, nullptr) != 0) _exit(5);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  handle(SIGUSR1, SA_RESTART);
  handle(SIGUSR2, 0);
  if (pipe(silent_pipe) != 0) return 4;
  bool all = strcmp(argv[1], "threads") == 0;
  if (all || strcmp(argv[1], "compute") == 0) start(compute);
  if (all) start(compute);
  if (all || strcmp(argv[1], "sleep") == 0) start(sleep_and_check);
  if (all || strcmp(argv[1], "poll") == 0) start(poll_for_ever);
  say("ready\n");
  return strcmp(argv[1], "write") == 0 ? answer_at_length() : answer_lines();
}
