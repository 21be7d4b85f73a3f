// What the programs about signals share: handlers and masks that end with their scope, and a timer that
// knocks.
#pragma once

#include <signal.h>
#include <sys/time.h>

#include <initializer_list>

#include "check.h"

inline volatile sig_atomic_t handled = 0;
inline siginfo_t last_info;

inline void count(int) { handled = handled + 1; }
inline void count_with_info(int, siginfo_t* info, void*) {
  last_info = *info;
  handled = handled + 1;
}

/// Sets a handler for its lifetime.
class Handler {
 public:
  Handler(int number, void (*handler)(int), int flags = 0) : number_(number) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    CHECK_EQ(sigaction(number, &action, &before_), 0);
  }
  Handler(int number, void (*handler)(int, siginfo_t*, void*), int flags = 0) : number_(number) {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    CHECK_EQ(sigaction(number, &action, &before_), 0);
  }
  ~Handler() { sigaction(number_, &before_, nullptr); }
  Handler(const Handler&) = delete;
  Handler& operator=(const Handler&) = delete;

 private:
  int number_;
  struct sigaction before_ {};
};

/// Blocks signals for its lifetime.
class Blocked {
 public:
  explicit Blocked(std::initializer_list<int> numbers) {
    sigemptyset(&set_);
    for (int number : numbers) sigaddset(&set_, number);
    CHECK_EQ(sigprocmask(SIG_BLOCK, &set_, &before_), 0);
  }
  ~Blocked() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  const sigset_t* set() const { return &set_; }
  const sigset_t* before() const { return &before_; }

 private:
  sigset_t set_, before_;
};

/// SIGALRM every `ms` milliseconds while it lives.
class Knocking {
 public:
  explicit Knocking(int ms, int flags = 0) : handler_(SIGALRM, count, flags) {
    handled = 0;
    const itimerval each{{0, ms * 1000}, {0, ms * 1000}};
    CHECK_EQ(setitimer(ITIMER_REAL, &each, nullptr), 0);
  }
  ~Knocking() {
    const itimerval none{};
    setitimer(ITIMER_REAL, &none, nullptr);
  }

 private:
  Handler handler_;
};
