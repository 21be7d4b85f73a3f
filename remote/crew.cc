#include "remote/crew.h"

#include <chrono>

namespace mosix {
namespace {

constexpr int kLongStreak = 64;
constexpr int kMostIdle = 2;  ///< more are left over from a burst
constexpr std::chrono::milliseconds kLook(4);
constexpr int kQuietLooks = 25;  ///< then nobody needs the one who is parked

}  // namespace

bool Crew::call_another() {
  if (idle_ > 0 || returning_ > 0) return false;
  ++idle_;
  if (parked_ <= calls_) return true;
  ++calls_;
  called_.notify_one();
  return false;
}

bool Crew::took(int tid, bool may_block) {
  std::lock_guard lock(mutex_);
  --idle_;
  ++taken_;
  streak_ = tid == last_tid_ && !may_block ? streak_ + 1 : 0;
  last_tid_ = tid;
  return streak_ < kLongStreak && call_another();
}

bool Crew::takes_longer() {
  std::lock_guard lock(mutex_);
  streak_ = 0;
  return call_another();
}

int Crew::parked() {
  std::lock_guard lock(mutex_);
  return parked_;
}

Crew::Next Crew::done(bool returned) {
  std::unique_lock lock(mutex_);
  if (returned) --returning_;
  if (streak_ >= kLongStreak && idle_ > 0 && parked_ == 0) return park(lock);
  if (idle_ >= kMostIdle) return Next::kEnd;
  ++idle_;
  return Next::kWait;
}

Crew::Next Crew::park(std::unique_lock<std::mutex>& lock) {
  ++parked_;
  uint64_t seen = taken_;
  for (int quiet = 0; quiet < kQuietLooks;) {
    called_.wait_for(lock, kLook, [&] { return calls_ > 0; });
    if (calls_ > 0) {  // whoever called has counted us as waiting
      --calls_, --parked_;
      return Next::kWait;
    }
    bool same = seen == taken_;
    seen = taken_;
    if (same && idle_ == 0) {  // the one call has been under way all the time
      --parked_, ++idle_;
      return Next::kWait;
    }
    quiet = same ? quiet + 1 : 0;
  }
  --parked_;
  return Next::kEnd;
}

}  // namespace mosix
