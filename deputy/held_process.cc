#include "deputy/held_process.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <chrono>

#include "libmosix/agent/agent_image.h"

namespace mosix {
namespace {

using Clock = std::chrono::steady_clock;

/// Another thread of ours lets go within milliseconds; an exec that is being watched may take longer.
constexpr int kTracerLimitMs = 5000;
constexpr int kStopLimitMs = 2000;
constexpr int kIdleLimitMs = 3000;
constexpr int kSomehowLimitMs = 1500;
constexpr uint64_t kTrapBit = 1ull << (SIGTRAP - 1);

void short_pause() {
  timespec pause{0, 200'000};
  nanosleep(&pause, nullptr);
}

bool between(uint64_t value, uint32_t first, uint32_t last) { return value >= first && value <= last; }

}  // namespace

uint64_t slot_of(uint64_t window, uint64_t stack_pointer) {
  uint64_t slot = stack_pointer & ~(kSlotBytes - 1);
  bool inside = slot >= slot_address(window, 0) && slot <= slot_address(window, kSlotCount - 1);
  return inside ? slot : 0;
}

Status HeldProcess::lock() {
  if (lock_.owns_lock()) return {};
  if (lock_.try_lock_for(std::chrono::milliseconds(kTracerLimitMs))) return {};
  return fail(EBUSY, "process " + std::to_string(record_.pid) + " is about to execute a program");
}

Status HeldProcess::stop() {
  TRY_VOID(lock());
  TRY(process_, stop_quietly(record_.pid, kStopLimitMs));
  return {};
}

void HeldProcess::adopt(Tracee tracee) {
  process_.pid = record_.pid;
  process_.threads.push_back(std::move(tracee));
}

void let_go_unnoticed(Tracee& tracee) {
  constexpr int64_t kEintr = -4, kRestartNoHand = -514;
  if (!tracee.attached() || !tracee.stopped()) return;
  if (tracee.last_stop().kind == StopKind::kInterrupt) {
    Result<user_regs_struct> registers = tracee.registers();
    if (registers && static_cast<int64_t>(registers->rax) == kEintr &&
        static_cast<int64_t>(registers->orig_rax) >= 0 && registers->orig_rax != SYS_close) {
      registers->rax = static_cast<uint64_t>(kRestartNoHand);
      (void)tracee.set_registers(*registers);
    }
  }
  (void)tracee.detach();
}

void HeldProcess::let_all_go() {
  for (Tracee& tracee : process_.threads) let_go_unnoticed(tracee);
  process_.threads.clear();
}

void HeldProcess::release() {
  let_all_go();
  if (lock_.owns_lock()) lock_.unlock();
}

Status HeldProcess::stop_where(const ProcessMemory& memory, uint64_t window, int limit_ms,
                               const Settled& settled) {
  auto deadline = Clock::now() + std::chrono::milliseconds(limit_ms);
  for (;;) {
    TRY_VOID(stop());
    bool all = true;
    for (Tracee& tracee : process_.threads) {
      TRY(user_regs_struct registers, tracee.registers());
      uint64_t slot = slot_of(window, registers.rsp);
      if (slot == 0) {
        all = false;
        continue;
      }
      TRY(AgentSlot head, memory.read_value<AgentSlot>(slot));
      all = all && settled(head, registers.rip - window);
    }
    if (all) return {};
    if (Clock::now() > deadline)
      return fail(EBUSY, "a thread of process " + std::to_string(record_.pid) +
                             " is in a call that cannot be interrupted");
    let_all_go();  // the right to trace stays ours
    short_pause();
  }
}

Status HeldProcess::stop_idle_deputies(const ProcessMemory& memory, uint64_t window) {
  return stop_where(memory, window, kIdleLimitMs, [](const AgentSlot& slot, uint64_t rip) {
    return slot.state == static_cast<uint32_t>(AgentState::kIdle) &&
           between(rip, kAgentImage.enter_check, kAgentImage.enter_end);
  });
}

Status HeldProcess::stop_deputies_somehow(const ProcessMemory& memory, uint64_t window) {
  Status stopped = stop_where(memory, window, kSomehowLimitMs, [](const AgentSlot& slot, uint64_t rip) {
    auto state = static_cast<AgentState>(slot.state);
    bool waits = state == AgentState::kIdle && between(rip, kAgentImage.enter_check, kAgentImage.enter_end);
    return waits || state == AgentState::kFailed || state == AgentState::kLost || state == AgentState::kEnded;
  });
  // The last look stands: a deputy that still connects is led away all the same.
  if (!stopped && stopped.error().code == EBUSY && held()) return {};
  return stopped;
}

Status HeldProcess::let_deputies_begin() {
  beginning_.clear();
  for (Tracee& tracee : process_.threads) {
    TRY(uint64_t mask, tracee.signal_mask());
    bool blocked = (mask & kTrapBit) != 0;
    if (blocked) TRY_VOID(tracee.set_signal_mask(mask & ~kTrapBit));
    beginning_.push_back({&tracee, blocked});
    TRY_VOID(tracee.resume());
  }
  return {};
}

/// True when it has trapped. Signals go to the deputy's handlers. The whole process may be stopped by now; its thread
/// goes on.
Result<bool> HeldProcess::pass_stop(const Beginning& one, const StopInfo& stop, const ProcessMemory& memory,
                                    uint64_t window) {
  Tracee& tracee = *one.tracee;
  if (stop.gone()) return fail(ESRCH, "thread " + std::to_string(tracee.tid()) + " " + stop.text());
  bool ours = stop.kind == StopKind::kSignal && stop.signal == SIGTRAP && stop.siginfo.si_code > 0;
  if (!ours) {
    TRY_VOID(tracee.resume(stop.kind == StopKind::kSignal ? stop.signal : 0));
    return false;
  }
  if (one.trap_blocked) {
    TRY(uint64_t mask, tracee.signal_mask());
    TRY_VOID(tracee.set_signal_mask(mask | kTrapBit));
  }
  TRY(user_regs_struct registers, tracee.registers());
  TRY(AgentSlot slot, memory.read_value<AgentSlot>(slot_of(window, registers.rsp)));
  if (slot.state == static_cast<uint32_t>(AgentState::kWorking)) return true;
  return fail(slot.error > 0 ? slot.error : EPIPE,
              "thread " + std::to_string(tracee.tid()) + " got no channel");
}

Result<bool> HeldProcess::deputies_have_begun(const ProcessMemory& memory, uint64_t window, int limit_ms) {
  constexpr int kSliceMs = 2;
  auto deadline = Clock::now() + std::chrono::milliseconds(limit_ms);
  while (!beginning_.empty()) {
    // All of them: the node lets none begin before it has heard of each, and one may stand with a signal.
    bool idle = true;
    for (size_t i = 0; i < beginning_.size();) {
      TRY(std::optional<StopInfo> stop, beginning_[i].tracee->poll_stop());
      bool begun = false;
      if (stop) {
        idle = false;
        TRY(begun, pass_stop(beginning_[i], *stop, memory, window));
      }
      if (begun)
        beginning_.erase(beginning_.begin() + static_cast<ptrdiff_t>(i));
      else
        ++i;
    }
    if (!idle || beginning_.empty()) continue;
    if (Clock::now() >= deadline) return false;
    Result<StopInfo> stop = beginning_.front().tracee->wait_stop(kSliceMs);
    if (!stop && stop.error().code == ETIMEDOUT) continue;
    if (!stop) return fail(std::move(stop.error()));
    TRY(bool begun, pass_stop(beginning_.front(), *stop, memory, window));
    if (begun) beginning_.erase(beginning_.begin());
  }
  return true;
}

void HeldProcess::give_up_beginning() {
  beginning_.clear();
  for (Tracee& tracee : process_.threads) {
    // What it stands with, a signal perhaps, goes its way when it is let go.
    if (tracee.attached() && !tracee.stopped() && tracee.interrupt()) (void)tracee.wait_stop(kStopLimitMs);
    bool signal = tracee.stopped() && tracee.last_stop().kind == StopKind::kSignal &&
                  tracee.last_stop().signal != SIGTRAP;
    if (signal) (void)tracee.detach(tracee.last_stop().signal);
  }
  let_all_go();
}

}  // namespace mosix
