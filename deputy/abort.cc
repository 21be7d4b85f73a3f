#include "deputy/abort.h"

#include <chrono>
#include <thread>

#include "deputy/held_process.h"
#include "libmosix/agent/agent_image.h"

namespace mosix {
namespace {

constexpr int kStopLimitMs = 2000;
constexpr auto kTracerLimit = std::chrono::seconds(5);

bool is_restart_code(int64_t result) {
  return result == -512 || result == -513 || result == -514 || result == -516 || result == -4;
}

/// Until the thread stands in a stop of ours; signals that were on their way reach the deputy's handler. False: it has
/// ended.
Result<bool> stop_thread(Tracee& tracee) {
  TRY_VOID(tracee.interrupt());
  for (;;) {
    TRY(StopInfo stop, tracee.wait_stop(kStopLimitMs));
    if (stop.gone()) return false;
    if (stop.kind == StopKind::kInterrupt || stop.kind == StopKind::kGroupStop) return true;
    TRY_VOID(tracee.interrupt());
    TRY_VOID(tracee.resume(stop.signal));
  }
}

/// What becomes of a thread that stands at `registers`, executing call `sequence` in `slot`.
Status lead_out(Tracee& tracee, const ProcessMemory& memory, uint64_t window, uint64_t slot,
                user_regs_struct registers) {
  uint64_t rip = registers.rip - window;
  if (rip >= kAgentImage.call_check && rip <= kAgentImage.call_syscall) {
    registers.rip = window + kAgentImage.call_abort;
    registers.orig_rax = ~0ull;
    return tracee.set_registers(registers);
  }
  auto result = static_cast<int64_t>(registers.rax);
  bool interrupted =
      rip == kAgentImage.call_end && static_cast<int64_t>(registers.orig_rax) >= 0 && is_restart_code(result);
  if (!interrupted) return {};
  auto verdict = static_cast<uint32_t>(Verdict::kRestart);
  TRY_VOID(memory.write_value(slot + offsetof(AgentSlot, verdict), verdict));
  if (result == -4) registers.rax = static_cast<uint64_t>(-514);
  registers.orig_rax = ~0ull;  // the kernel here must not restart it
  return tracee.set_registers(registers);
}

/// A deputy that job control has stopped would answer when it is continued. The node waits for it now.
Status let_answer(Tracee& tracee, const ProcessMemory& memory, uint64_t window, uint64_t slot,
                  uint32_t sequence) {
  constexpr int kLooks = 1000;
  for (int look = 0; look < kLooks; ++look) {
    bool signal = tracee.last_stop().kind == StopKind::kSignal;
    TRY_VOID(tracee.resume(signal ? tracee.last_stop().signal : 0));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    TRY(std::optional<StopInfo> again, tracee.poll_stop());
    if (again && again->gone()) return {};
    if (again) continue;  // our own interrupt, told a second time, or a signal
    TRY(bool stopped, stop_thread(tracee));
    if (!stopped) return {};
    TRY(uint32_t answered, memory.read_value<uint32_t>(slot + offsetof(AgentSlot, answered)));
    TRY(user_regs_struct registers, tracee.registers());
    bool sent = registers.rip - window == kAgentImage.enter_end;
    if (static_cast<int32_t>(answered - sequence) >= 0 && sent) return {};
  }
  return {};
}

}  // namespace

Status abort_call(ProcessRecord& record, const AbortOrder& order) {
  uint64_t window = record.place().window;
  if (window == 0) return {};
  std::unique_lock lock(record.tracer, kTracerLimit);
  if (!lock.owns_lock())
    return fail(EBUSY, "thread " + std::to_string(order.tid) + " is traced by another operation");
  if (record.place().window != window) return {};  // it has come home meanwhile
  TRY(Tracee tracee, Tracee::seize(order.tid));
  TRY(bool stopped, stop_thread(tracee));
  if (!stopped) return {};
  TRY(user_regs_struct registers, tracee.registers());
  uint64_t slot = slot_of(window, registers.rsp);
  if (slot == 0) {
    let_go_unnoticed(tracee);
    return {};
  }
  TRY(ProcessMemory memory, ProcessMemory::open(record.pid));
  TRY_VOID(memory.write_value(slot + offsetof(AgentSlot, abort_sequence), order.sequence));
  TRY(uint32_t current, memory.read_value<uint32_t>(slot + offsetof(AgentSlot, current_sequence)));
  if (current == order.sequence) TRY_VOID(lead_out(tracee, memory, window, slot, registers));
  if (tracee.last_stop().kind == StopKind::kGroupStop)
    TRY_VOID(let_answer(tracee, memory, window, slot, order.sequence));
  // A later call than the one that was to be aborted must not notice.
  let_go_unnoticed(tracee);
  return {};
}

}  // namespace mosix
