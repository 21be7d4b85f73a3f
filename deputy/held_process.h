// A process in our hands: the right to trace it, and its threads standing still. Lives in one thread, as
// ptrace demands; whatever is held when it goes away is let go as it stands.
#pragma once

#include <functional>
#include <mutex>

#include "deputy/record.h"
#include "libmosix/agent/agent.h"
#include "libmosix/process/tracee.h"

namespace mosix {

class HeldProcess {
 public:
  explicit HeldProcess(ProcessRecord& record) : record_(record), lock_(record.tracer, std::defer_lock) {}

  /// Stops every thread, wherever it is. EBUSY: another thread of ours does not let go of it.
  Status stop();
  /// Stops the deputies of `window`, each where it can be led from: waiting for a frame. EBUSY after the
  /// limit.
  Status stop_idle_deputies(const ProcessMemory& memory, uint64_t window);
  /// Stops the deputies to give the process back to its own code: anywhere but in a call or a connection
  /// attempt, or, after the limit, wherever they are inside the window.
  Status stop_deputies_somehow(const ProcessMemory& memory, uint64_t window);
  /// Lets deputies that were set to connect do so, in our hands: a stop by job control in the middle of it would leave
  /// the node waiting, so it takes effect when they are let go.
  Status let_deputies_begin();
  /// True when the guest may begin as far as each of them is concerned, and they stand; false if that is not so after
  /// `limit_ms`. An error if one of them has no channel or has ended.
  Result<bool> deputies_have_begun(const ProcessMemory& memory, uint64_t window, int limit_ms);
  /// Lets go of all of them, wherever they are by then; the right to trace stays.
  void give_up_beginning();
  /// Takes the right to trace alone, then a thread that is traced and stands already.
  Status lock();
  void adopt(Tracee tracee);
  /// Lets all threads go on with the registers that they have.
  void release();

  bool held() const { return !process_.threads.empty(); }
  StoppedProcess& threads() { return process_; }
  Tracee& worker() { return process_.threads.front(); }

 private:
  struct Beginning {
    Tracee* tracee;
    bool trap_blocked;  ///< by the thread: SIGTRAP, by which it tells
  };
  static Result<bool> pass_stop(const Beginning& one, const StopInfo& stop, const ProcessMemory& memory,
                                uint64_t window);
  using Settled = std::function<bool(const AgentSlot& slot, uint64_t rip_offset)>;
  void let_all_go();
  Status stop_where(const ProcessMemory& memory, uint64_t window, int limit_ms, const Settled& settled);

  ProcessRecord& record_;
  std::unique_lock<TracerRight> lock_;
  StoppedProcess process_;
  std::vector<Beginning> beginning_;
};

/// Lets go of a thread that an interrupt of ours has stopped, as if it had not: calls that say EINTR outright
/// (those of epoll and of semaphores, sigtimedwait) begin again, unless a signal has come as well.
void let_go_unnoticed(Tracee& tracee);

/// The slot that a thread of the agent runs on, from its stack pointer; 0 if that is not in the window.
uint64_t slot_of(uint64_t window, uint64_t stack_pointer);

}  // namespace mosix
