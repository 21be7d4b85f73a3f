// What keeps a process at home, as /proc tells it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "deputy/movable.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

using namespace mosix;

/// Our threads trace it for a moment, one after the other, and end.
TEST_CASE("a thread of ours that has just let go is no foreign tracer") {
  pid_t child = fork();
  if (child == 0)
    for (;;) pause();
  std::atomic<bool> over{false};
  std::thread tracers([&] {
    while (!over) {
      std::thread([&] {
        Result<Tracee> tracee = Tracee::seize(child);
        if (!tracee || !tracee->interrupt() || !tracee->wait_stop(5000)) return;
        (void)tracee->detach();
      }).join();
    }
  });
  std::string said;
  for (int look = 0; look < 100'000 && said.empty(); ++look) said = foreign_tracer(child);
  over = true;
  tracers.join();
  CHECK_EQ(said, "");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_CASE("another process that traces it is one") {
  pid_t child = fork();
  if (child == 0)
    for (;;) pause();
  pid_t tracer = fork();
  if (tracer == 0) {
    Result<Tracee> tracee = Tracee::seize(child);
    for (;;) pause();
  }
  std::string said;
  while (said.empty()) said = foreign_tracer(child);
  CHECK_NE(said.find("process " + std::to_string(tracer)), std::string::npos);
  for (pid_t pid : {tracer, child}) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  CHECK_EQ(foreign_tracer(child), "");
}
