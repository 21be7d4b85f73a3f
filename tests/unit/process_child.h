// A child process of a test: runs process_target, or a function after fork, and is killed and reaped at the
// end.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

/// The thread sanitizer has a thread of its own in each process, forked ones too, and makes a fork of vfork.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif
#else
inline constexpr bool kThreadSanitizer = false;
#endif
/// Threads of a forked child that has started none.
inline constexpr int kThreadsOfChild = kThreadSanitizer ? 2 : 1;

class Child {
 public:
  /// A program; its standard input and output are ours.
  explicit Child(std::vector<std::string> words) {
    start([words]() mutable {
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      execv(arguments[0], arguments.data());
      _exit(127);
    });
  }
  explicit Child(const std::function<void()>& body) { start(body); }
  ~Child() {
    close(to_);
    close(from_);
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int pid() const { return pid_; }
  void say(const std::string& text) {
    REQUIRE(write(to_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  /// The next line, without its end; a test fails after ten seconds of silence.
  std::string hear() {
    while (heard_.find('\n') == std::string::npos) {
      pollfd input{from_, POLLIN, 0};
      REQUIRE(poll(&input, 1, 10'000) == 1);
      char block[256];
      ssize_t got = read(from_, block, sizeof(block));
      REQUIRE(got > 0);
      heard_.append(block, static_cast<size_t>(got));
    }
    std::string line = heard_.substr(0, heard_.find('\n'));
    heard_.erase(0, line.size() + 1);
    return line;
  }
  void end_input() {
    close(to_);
    to_ = -1;
  }
  /// Waits for the end; wait status.
  int finish() {
    int status = -1;
    REQUIRE(waitpid(pid_, &status, 0) == pid_);
    pid_ = 0;
    return status;
  }

 private:
  void start(const std::function<void()>& body) {
    int in[2], out[2];
    REQUIRE(pipe(in) == 0);
    REQUIRE(pipe(out) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(in[0], 0);
      dup2(out[1], 1);
      close(in[1]);
      close(out[0]);
      body();
      _exit(0);
    }
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }
  int pid_ = 0, to_ = -1, from_ = -1;
  std::string heard_;
};

/// In the child of a fork: tell a line, wait for ever.
inline void say_and_wait(const std::string& line) {
  if (write(1, (line + "\n").data(), line.size() + 1) < 0) _exit(3);
  for (;;) pause();
}
