// The small frame of the programs in this folder: each is a list of named checks, prints `ok NAME` for every
// one that holds, and ends with status 1 and what differed at the first that does not. Output is the same on
// every run and every machine: no pids, times or addresses. The programs know nothing of mosix; run natively
// they show what Linux does, and run elsewhere they have to show the same.
//
//   ./files            all checks          ./files NAME...    only these
//   ./files --list     their names
//
// MOSIX_TEST_LAST names the seconds for which the checks are made again and again: for programs that are to be moved
// while they run, and would be over before.
#pragma once

#include <signal.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <initializer_list>
#include <sstream>
#include <string>

#include "move_point.h"

namespace check {

inline const char* current = "";

/// Ends the program: the check named `current` does not hold. Async-signal-safe enough for a dying test.
[[noreturn]] inline void differs(const char* file, int line, const std::string& what) {
  dprintf(2, "not ok %s\n  %s:%d: %s\n", current, file, line, what.c_str());
  _exit(1);
}

template <class T>
std::string shown(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

template <class A, class B>
void equal(const char* file, int line, const char* text, const A& left, const B& right) {
  const int saved = errno;
  if (left == right) return;
  differs(file, line,
          std::string(text) + ": " + shown(left) + " and not " + shown(right) + " (errno " + strerror(saved) +
              ")");
}

struct Check {
  const char* name;
  void (*body)();
};

inline int run(int argc, char** argv, std::initializer_list<Check> checks) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  // Whoever started us may ignore signals (nohup, a shell's background job); the checks begin from Linux's default.
  for (int number = 1; number < 32; ++number) signal(number, SIG_DFL);
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const Check& one : checks) puts(one.name);
    return 0;
  }
  timespec begun{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &begun);
  const char* last = getenv("MOSIX_TEST_LAST");
  int ran = 0;
  for (bool first = true;; first = false) {
    for (const Check& one : checks) {
      bool wanted = argc < 2;
      for (int i = 1; i < argc; ++i) wanted = wanted || strcmp(argv[i], one.name) == 0;
      if (!wanted) continue;
      current = one.name;
      move_point();
      one.body();
      if (first) printf("ok %s\n", one.name);
      fflush(stdout);
      ++ran;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (ran == 0 || last == nullptr || now.tv_sec - begun.tv_sec >= atol(last)) break;
  }
  if (ran == 0) fprintf(stderr, "no such check\n");
  return ran == 0 ? 2 : 0;
}

/// A fresh directory that is the working directory while it exists, and removed with all that is in it.
class Scratch {
 public:
  Scratch() {
    const char* base = getenv("TMPDIR");
    path_ = std::string(base ? base : "/tmp") + "/mosix-check-XXXXXX";
    if (!mkdtemp(path_.data())) differs(__FILE__, __LINE__, "mkdtemp " + path_ + ": " + strerror(errno));
    before_ = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (chdir(path_.c_str()) != 0) differs(__FILE__, __LINE__, "chdir " + path_ + ": " + strerror(errno));
  }
  ~Scratch() {
    if (fchdir(before_) != 0) differs(__FILE__, __LINE__, std::string("fchdir: ") + strerror(errno));
    close(before_);
    nftw(
        path_.c_str(), [](const char* path, const struct stat*, int, struct FTW*) { return remove(path); },
        16, FTW_DEPTH | FTW_PHYS);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int before_ = -1;
};

/// Two pages of which the second cannot be touched: `at(n)` is where n bytes end exactly before it, so that
/// a byte too many is seen at once.
class Fenced {
 public:
  Fenced() {
    base_ = static_cast<char*>(
        mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + kPage, kPage, PROT_NONE) != 0)
      differs(__FILE__, __LINE__, "cannot make a fenced page");
  }
  ~Fenced() { munmap(base_, 2 * kPage); }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;
  char* at(size_t bytes) const { return base_ + kPage - bytes; }
  /// The first byte behind the fence.
  char* forbidden() const { return base_ + kPage; }
  static constexpr size_t kPage = 4096;

 private:
  char* base_ = nullptr;
};

/// Runs `body` in a forked child, which ends with its result, and returns the wait status.
template <class Body>
int in_child(Body body) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid < 0) differs(__FILE__, __LINE__, std::string("fork: ") + strerror(errno));
  if (pid == 0) _exit(body());
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) differs(__FILE__, __LINE__, std::string("waitpid: ") + strerror(errno));
  }
  return status;
}

inline double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace check

#define CHECK(condition)                                                                            \
  do {                                                                                              \
    if (!(condition))                                                                               \
      ::check::differs(__FILE__, __LINE__,                                                          \
                       std::string(#condition) + " does not hold (errno " + strerror(errno) + ")"); \
  } while (0)
#define CHECK_EQ(left, right) ::check::equal(__FILE__, __LINE__, #left " == " #right, left, right)
/// The call returns -1 with this errno.
#define CHECK_FAILS(call, code)                                                                 \
  do {                                                                                          \
    errno = 0;                                                                                  \
    const auto check_result = (call);                                                           \
    const int check_errno = errno;                                                              \
    ::check::equal(__FILE__, __LINE__, #call " returns", static_cast<long>(check_result), -1L); \
    ::check::equal(__FILE__, __LINE__, #call " sets errno", std::string(strerror(check_errno)), \
                   std::string(strerror(code)));                                                \
  } while (0)
