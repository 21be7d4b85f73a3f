// spawn_true COUNT: microseconds to start /bin/true and wait for its end, the middle of COUNT.
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "bench/clock.h"

extern char** environ;

int main(int argc, char** argv) {
  const int count = argc > 1 ? atoi(argv[1]) : 200;
  char name[] = "true";
  char* words[] = {name, nullptr};
  std::vector<double> each;
  for (int i = -5; i < count; ++i) {
    const double start = bench::now_ns();
    pid_t pid = 0;
    int status = -1;
    if (posix_spawn(&pid, "/bin/true", nullptr, nullptr, words, environ) != 0) return 1;
    if (waitpid(pid, &status, 0) != pid || status != 0) return 1;
    if (i >= 0) each.push_back((bench::now_ns() - start) / 1e3);
  }
  printf("%.1f\n", bench::median(each));
  return 0;
}
