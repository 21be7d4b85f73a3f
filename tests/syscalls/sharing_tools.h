// What the programs about shared memory share: such memory and what may lie in it, children, and two ways to wait for
// another process, a gate and a word.
#pragma once

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <climits>

#include "check.h"

constexpr size_t kPage = 4096;

inline char* mapped(size_t bytes, int flags = MAP_SHARED, int protection = PROT_READ | PROT_WRITE) {
  void* at = mmap(nullptr, bytes, protection, flags | MAP_ANONYMOUS, -1, 0);
  CHECK(at != MAP_FAILED);
  return static_cast<char*>(at);
}

/// Something that all processes forked while it lives have in common. It begins as zeroes.
template <class T>
class Shared {
 public:
  Shared() : it_(reinterpret_cast<T*>(mapped(sizeof(T)))) {}
  ~Shared() { munmap(static_cast<void*>(it_), sizeof(T)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  T& operator*() const { return *it_; }
  T* operator->() const { return it_; }

 private:
  T* it_;
};

using Word = std::atomic<int>;

/// One passes for each time that it is opened, in whatever process. Gone after an exec.
class Gate {
 public:
  Gate() { CHECK_EQ(pipe2(ends_, O_CLOEXEC), 0); }
  ~Gate() {
    close(ends_[0]);
    close(ends_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  void open() const { CHECK_EQ(write(ends_[1], "o", 1), 1); }
  void pass() const {
    char byte;
    CHECK_EQ(read(ends_[0], &byte, 1), 1);
  }

 private:
  int ends_[2];
};

/// A child that ends with 0, if all that `body` checks holds.
template <class Body>
pid_t child_of(Body body) {
  fflush(stdout);
  const pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    body();
    _exit(0);
  }
  return pid;
}

inline int status_of(pid_t pid) {
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

inline void ends_well(pid_t pid) { CHECK_EQ(status_of(pid), 0); }

/// Of processes, not of threads: without FUTEX_PRIVATE_FLAG.
inline long futex(Word& word, int operation, int value, const timespec* limit = nullptr) {
  return syscall(SYS_futex, &word, operation, value, limit, nullptr, FUTEX_BITSET_MATCH_ANY);
}

/// Sleeps until the word has this value. Nobody here handles signals: no wait is ever interrupted.
inline void await(Word& word, int value) {
  for (int now; (now = word.load()) != value;)
    if (futex(word, FUTEX_WAIT, now) != 0) CHECK_EQ(errno, EAGAIN);
}

inline void announce(Word& word, int value) {
  word = value;
  CHECK(futex(word, FUTEX_WAKE, INT_MAX) >= 0);
}
