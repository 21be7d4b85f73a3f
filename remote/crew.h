// The workers of one seccomp listener: how many of them wait for a notification, and which of them.
//
// The rule is that whoever takes a notification makes sure that another worker waits: the call may block, and some calls
// are only brought to an end by notifications of their own. But two workers that wait by turns cost a change of threads
// more for each call than one that comes straight back. So while one thread alone makes calls that do not block, one
// after the other, a single worker serves them, and the next one is parked. It is called as soon as a call may block, or
// another thread calls, or the call at hand takes longer; and it looks for itself, for no guess must ever cost more
// than a moment.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "libmosix/common/unique_fd.h"

namespace mosix {

class Crew {
 public:
  /// With one worker, who is about to wait.
  explicit Crew(int listener) : listener_(listener) {}
  int listener() const { return listener_.get(); }

  /// A worker has taken a notification. True: another worker has to be started.
  bool took(int tid, bool may_block);
  /// The call at hand waits for something after all. True: another worker has to be started.
  bool takes_longer();
  /// From here on the worker at hand waits for nobody any more on its way back.
  void returns() { ++returning_; }
  enum class Next { kWait, kEnd };
  /// A worker has done its call; it may be parked in here. `returned`: it has said so.
  Next done(bool returned);
  /// For tests.
  int parked();

 private:
  bool call_another();
  Next park(std::unique_lock<std::mutex>& lock);

  UniqueFd listener_;
  std::mutex mutex_;
  std::condition_variable called_;
  int idle_ = 1;                ///< workers that wait for a notification, or are about to
  int parked_ = 0, calls_ = 0;  ///< workers that are parked, and how many of them are called
  uint64_t taken_ = 0;          ///< notifications
  int last_tid_ = 0;
  int streak_ = 0;  ///< calls of that thread that do not block, one after the other
  std::atomic<int> returning_{0};
};

}  // namespace mosix
