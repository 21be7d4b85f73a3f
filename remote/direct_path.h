// One thread's direct path to its deputy, seen from the supervisor: a page that both sides have, in whose `state` guest
// and supervisor agree who has the channel. The guest may write there what it likes; all that it can spoil is its own.
#pragma once

#include <memory>

#include "libmosix/agent/agent.h"
#include "libmosix/common/frame.h"
#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

class DirectPath {
 public:
  /// Closed, until open() is called. `channel`: its number in the guest's own table.
  static Result<std::unique_ptr<DirectPath>> create(uint32_t epoch, int channel);
  ~DirectPath();
  DirectPath(const DirectPath&) = delete;
  DirectPath& operator=(const DirectPath&) = delete;

  /// The memory of the area, kDirectAreaBytes, for the guest to map. Given away once.
  UniqueFd take_memory() { return std::move(memory_); }
  int channel() const { return channel_; }

  /// A worker serves a trapped call of the thread: it has the channel, but not for long.
  void begin_trapped_call() { __atomic_fetch_or(&head_->state, kDirectBusy, __ATOMIC_ACQ_REL); }
  /// Calls may go directly from now on. `signals_acked`: all signals up to that number are in our hands.
  void open(uint32_t signals_acked);
  /// No direct call begins any more. True: and none is under way or handed over, the channel is ours.
  bool close();
  /// The same, if that is so just now; else nothing changes.
  bool close_if_idle();
  bool in_call() const { return (load_state() & kDirectInCall) != 0; }
  bool handed_over() const { return __atomic_load_n(&head_->handed_over, __ATOMIC_ACQUIRE) != 0; }
  /// After close(): returns when no direct call is under way, or when the time is over.
  void wait_for_end(int limit_ms);
  uint32_t calls() const { return __atomic_load_n(&head_->calls, __ATOMIC_RELAXED); }

  struct HandedOver {
    uint32_t sequence = 0;
    CallBody call{};
    std::vector<uint8_t> received;  ///< of what has come back
  };
  /// What the thread that has trapped now has sent and not got the answer to. It is the caller's from now on.
  HandedOver take_over();

 private:
  DirectPath(UniqueFd memory, uint8_t* page, int channel);
  uint32_t load_state() const { return __atomic_load_n(&head_->state, __ATOMIC_ACQUIRE); }

  UniqueFd memory_;
  uint8_t* page_;
  DirectHead* head_;
  int channel_;
};

}  // namespace mosix
