// The right to have threads of one process under ptrace: one thread of the custodian at a time. A timed mutex in
// all but name. std::timed_mutex waits by pthread_mutex_clocklock, which the thread sanitizers of GCC 12 and Clang 14
// do not know: they took each unlock for an error and saw nothing of the order that the lock makes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace mosix {

class TracerRight {
 public:
  bool try_lock_for(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, limit, [this] { return !taken_; })) return false;
    return taken_ = true;
  }
  void unlock() {
    std::lock_guard lock(mutex_);
    taken_ = false;
    changed_.notify_one();
  }
  void lock() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !taken_; });
    taken_ = true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool taken_ = false;
};

}  // namespace mosix
