#include "deputy/deputize.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <array>

#include "deputy/held_process.h"
#include "deputy/window.h"
#include "libmosix/agent/agent_image.h"
#include "libmosix/common/features.h"

namespace mosix {
namespace {

constexpr uint64_t kRestorer = 0x04000000;  // SA_RESTORER
constexpr uint64_t kKeptFlags = SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_NOCLDSTOP | SA_NOCLDWAIT;
constexpr uint64_t kRobustListBytes = 24;
constexpr uint64_t kRseqUnregister = 1;

struct KernelAltstack {
  uint64_t sp;
  int32_t flags;
  int32_t padding;
  uint64_t size;
};

bool is_handled(const SignalAction& action) {
  return action.handler != reinterpret_cast<uint64_t>(SIG_DFL) &&
         action.handler != reinterpret_cast<uint64_t>(SIG_IGN);
}

/// The guest's decision about restarting, blocking and resetting is home's to make; the handler is ours.
SignalAction agent_action(const SignalAction& guest, uint64_t window) {
  return {window + kAgentImage.on_signal, (guest.flags & kKeptFlags) | SA_SIGINFO | kRestorer,
          window + kAgentImage.restorer, guest.mask};
}

void add_action(Batch& batch, int signal, const SignalAction& action) {
  batch.add(SYS_rt_sigaction, static_cast<uint64_t>(signal), batch.place_data(&action, sizeof action), 0, 8);
}

void add_altstack(Batch& batch, const KernelAltstack& stack) {
  batch.add(SYS_sigaltstack, batch.place_data(&stack, sizeof stack), 0);
}

/// Timers that count the program's processor time: they go where it computes.
void add_cpu_timers(Batch& batch, const std::vector<uint64_t>& timers) {
  constexpr size_t kWords = 4;  // of an itimerval
  if (timers.size() != 2 * kWords) return;
  batch.add(SYS_setitimer, ITIMER_VIRTUAL, batch.place_data(timers.data(), kWords * 8), 0);
  batch.add(SYS_setitimer, ITIMER_PROF, batch.place_data(timers.data() + kWords, kWords * 8), 0);
}

Status quiet_thread(Tracee& tracee, const ProcessMemory& memory, const ThreadState& thread,
                    const ProcessState& state, bool first) {
  Batch batch({state.window_base, thread.slot});
  if (thread.rseq_address != 0)
    batch.add(SYS_rseq, thread.rseq_address, thread.rseq_size, kRseqUnregister, thread.rseq_signature);
  add_altstack(batch, {0, SS_DISABLE, 0, 0});
  batch.add(SYS_set_robust_list, 0, kRobustListBytes);
  batch.add(SYS_set_tid_address, 0);
  if (first) add_cpu_timers(batch, std::vector<uint64_t>(state.cpu_timers.size(), 0));
  if (first)
    for (size_t i = 0; i < state.actions.size(); ++i)
      if (is_handled(state.actions[i]))
        add_action(batch, static_cast<int>(i) + 1, agent_action(state.actions[i], state.window_base));
  TRY_VOID(batch.run(tracee, memory));
  if (batch.first_error() != 0)
    return fail(batch.first_error(), "quiet thread " + std::to_string(thread.tid));
  return {};
}

/// The best way to try; the agent goes on to the next where the kernel refuses.
RingMode ring_mode() {
  if (!feature_enabled("io_uring")) return RingMode::kPlainSocket;
  return rings_need_places() ? RingMode::kRegistered : RingMode::kWithoutDescriptor;
}

void set_peer(AgentSlot& slot, const DeputyPeer& peer) {
  slot.peer_address = peer.address;
  slot.peer_port = peer.port;
  memcpy(slot.token, peer.token, sizeof slot.token);
  slot.epoch = peer.epoch;
  slot.ring_mode = static_cast<uint32_t>(ring_mode());
  slot.current_sequence = 0xffffffffu;
  slot.calls_accepted = 0;
  slot.state = static_cast<uint32_t>(AgentState::kStarting);
  slot.socket = -1;
  slot.traps_first = 1;
}

/// The thread begins as a deputy as soon as it is let go.
Status aim_at_deputy(Tracee& tracee, AgentPlace place) {
  TRY(user_regs_struct registers, tracee.registers());
  return tracee.set_registers(
      agent_registers(registers, place, kAgentImage.entry_deputy, place.address(), 0));
}

Result<int> slot_index(Tracee& tracee, uint64_t window) {
  TRY(user_regs_struct registers, tracee.registers());
  uint64_t slot = slot_of(window, registers.rsp);
  if (slot == 0) return fail(EFAULT, "thread " + std::to_string(tracee.tid()) + " is not in the agent");
  return static_cast<int>((slot - slot_address(window, 0)) / kSlotBytes);
}

const ThreadState* state_of(const ProcessState& state, int tid) {
  for (const ThreadState& thread : state.threads)
    if (thread.tid == tid) return &thread;
  return nullptr;
}

/// Signals that came to the deputy and never reached the guest's thread.
Status add_waiting_signals(Batch& batch, const ProcessMemory& memory, const ProcessState& state,
                           const ThreadState& thread) {
  uint64_t at = slot_address(state.window_base, thread.slot);
  TRY(AgentSlot slot, memory.read_value<AgentSlot>(at));
  uint32_t waiting = slot.signals_taken - thread.signals_acked;
  if (waiting > kSignalQueue) return {};
  for (uint32_t number = thread.signals_acked + 1; number != slot.signals_taken + 1; ++number) {
    TRY(Siginfo info,
        memory.read_value<Siginfo>(at + kSlotSignals + number % kSignalQueue * sizeof(Siginfo)));
    int32_t signal;
    memcpy(&signal, info.bytes, sizeof signal);
    batch.add(SYS_rt_tgsigqueueinfo, static_cast<uint64_t>(state.pid), static_cast<uint64_t>(thread.tid),
              static_cast<uint64_t>(signal), batch.place_data(&info, sizeof info));
  }
  return {};
}

Status restore_actions(Tracee& worker, const ProcessMemory& memory, const ProcessState& state, int slot) {
  Batch batch({state.window_base, slot});
  for (size_t i = 0; i < state.actions.size(); ++i) {
    int signal = static_cast<int>(i) + 1;
    if (signal != SIGKILL && signal != SIGSTOP) add_action(batch, signal, state.actions[i]);
  }
  add_cpu_timers(batch, state.cpu_timers);
  return batch.run(worker, memory);
}

Status restore_thread(Tracee& tracee, const ProcessMemory& memory, const ProcessState& state,
                      const ThreadState& thread) {
  AgentPlace place{state.window_base, thread.slot};
  Batch batch(place);
  // SS_ONSTACK is a report, not an order.
  add_altstack(batch,
               {thread.altstack_sp, static_cast<int32_t>(thread.altstack_flags & ~uint32_t{SS_ONSTACK}), 0,
                thread.altstack_size});
  batch.add(SYS_set_robust_list, thread.robust_list, kRobustListBytes);
  batch.add(SYS_set_tid_address, thread.clear_child_tid);
  if (thread.rseq_address != 0)
    batch.add(SYS_rseq, thread.rseq_address, thread.rseq_size, 0, thread.rseq_signature);
  TRY_VOID(add_waiting_signals(batch, memory, state, thread));
  return batch.run(tracee, memory);
}

/// Ends the channels of all, at the same time: the kernel takes its time over each ring.
Status tear_down(StoppedProcess& process, uint64_t window, const std::vector<int>& slots) {
  Status first_failure;
  size_t started = 0;
  for (; started < slots.size() && first_failure; ++started) {
    AgentPlace place{window, slots[started]};
    Tracee& tracee = process.threads[started];
    Result<user_regs_struct> base = tracee.registers();
    first_failure = base ? tracee.start_to_trap(
                               agent_registers(*base, place, kAgentImage.entry_teardown, place.address(), 0))
                         : Status(fail(std::move(base.error())));
    if (!first_failure) break;
  }
  for (size_t i = 0; i < started; ++i)
    if (Result<user_regs_struct> ended = process.threads[i].finish_to_trap(); !ended && first_failure)
      first_failure = fail(std::move(ended.error()));
  return first_failure;
}

/// int3 resets an ignored SIGTRAP to its default: the action is set once more after the last trap.
Status restore_ignored_trap(Tracee& worker, const ProcessMemory& memory, uint64_t site,
                            const ProcessState& state, int slot) {
  if (state.actions.size() < SIGTRAP) return {};
  const SignalAction& action = state.actions[SIGTRAP - 1];
  if (action.handler != reinterpret_cast<uint64_t>(SIG_IGN)) return {};
  uint64_t at = slot_address(state.window_base, slot) + kSlotBuffer;
  TRY_VOID(memory.write_value(at, action));
  TRY(long done, worker.inject_syscall(site, SYS_rt_sigaction, SIGTRAP, at, 0, 8));
  (void)done;
  return {};
}

Status restore_registers(Tracee& tracee, const ThreadState& thread, const user_regs_struct& registers) {
  auto* first = reinterpret_cast<const std::byte*>(thread.xstate.data());
  TRY_VOID(tracee.set_xstate(std::vector<std::byte>(first, first + thread.xstate.size())));
  TRY_VOID(tracee.set_registers(registers));
  return tracee.set_signal_mask(thread.signal_mask);
}

}  // namespace

Status quiet_process(StoppedProcess& process, const ProcessMemory& memory, const ProcessState& state) {
  for (size_t i = 0; i < process.threads.size(); ++i)
    TRY_VOID(quiet_thread(process.threads[i], memory, state.threads[i], state, i == 0));
  return {};
}

Status prepare_deputies(StoppedProcess& process, const ProcessMemory& memory, const ProcessState& state,
                        const DeputyPeer& peer) {
  for (size_t i = 0; i < process.threads.size(); ++i) {
    const ThreadState& thread = state.threads[i];
    AgentPlace place{state.window_base, thread.slot};
    AgentSlot slot{};
    slot.window = state.window_base;
    slot.index = static_cast<uint32_t>(thread.slot);
    slot.tid = static_cast<uint32_t>(thread.tid);
    slot.pid = static_cast<uint32_t>(state.pid);
    set_peer(slot, peer);
    TRY_VOID(memory.write_value(place.address(), slot));
    TRY_VOID(aim_at_deputy(process.threads[i], place));
    TRY_VOID(process.threads[i].set_signal_mask(thread.signal_mask));
  }
  return {};
}

Result<std::vector<DeputyPeer>> peers_of(StoppedProcess& process, const ProcessMemory& memory,
                                         uint64_t window) {
  std::vector<DeputyPeer> peers;
  for (Tracee& tracee : process.threads) {
    TRY(int index, slot_index(tracee, window));
    TRY(AgentSlot slot, memory.read_value<AgentSlot>(slot_address(window, index)));
    DeputyPeer peer{slot.peer_address, slot.peer_port, {}, slot.epoch};
    memcpy(peer.token, slot.token, sizeof peer.token);
    peers.push_back(peer);
  }
  return peers;
}

Status redirect_deputies(StoppedProcess& process, const ProcessMemory& memory, uint64_t window,
                         const std::vector<DeputyPeer>& peers) {
  std::vector<int> slots;
  for (Tracee& tracee : process.threads) {
    TRY(int index, slot_index(tracee, window));
    slots.push_back(index);
  }
  TRY_VOID(tear_down(process, window, slots));
  for (size_t i = 0; i < process.threads.size(); ++i) {
    Tracee& tracee = process.threads[i];
    AgentPlace place{window, slots[i]};
    TRY(AgentSlot slot, memory.read_value<AgentSlot>(place.address()));
    set_peer(slot, peers[i]);
    TRY_VOID(memory.write_value(place.address(), slot));
    TRY_VOID(aim_at_deputy(tracee, place));
  }
  return {};
}

Status make_native(StoppedProcess& process, const ProcessMemory& memory, uint64_t syscall_site,
                   const ProcessState& state, const std::vector<user_regs_struct>& registers) {
  std::vector<const ThreadState*> threads;
  for (Tracee& tracee : process.threads) {
    threads.push_back(state_of(state, tracee.tid()));
    if (threads.back() == nullptr)
      return fail(ESRCH, "thread " + std::to_string(tracee.tid()) + " has no state to go on with");
  }
  Tracee& worker = process.threads.front();
  TRY_VOID(restore_actions(worker, memory, state, threads[0]->slot));
  for (size_t i = 0; i < threads.size(); ++i)
    TRY_VOID(restore_thread(process.threads[i], memory, state, *threads[i]));
  std::vector<int> slots;
  for (const ThreadState* thread : threads) slots.push_back(thread->slot);
  TRY_VOID(tear_down(process, state.window_base, slots));
  TRY_VOID(restore_ignored_trap(worker, memory, syscall_site, state, threads[0]->slot));
  TRY_VOID(remove_agent(worker, memory, syscall_site, state.window_base));
  for (size_t i = 0; i < threads.size(); ++i) {
    size_t index = static_cast<size_t>(threads[i] - state.threads.data());
    TRY_VOID(restore_registers(process.threads[i], *threads[i], registers[index]));
  }
  return {};
}

Status take_agent_out(StoppedProcess& process, const ProcessMemory& memory, uint64_t syscall_site,
                      const Capture& capture) {
  Tracee& worker = process.threads.front();
  TRY_VOID(restore_ignored_trap(worker, memory, syscall_site, capture.state, 0));
  TRY_VOID(remove_agent(worker, memory, syscall_site, capture.state.window_base));
  for (size_t i = 0; i < process.threads.size() && i < capture.state.threads.size(); ++i)
    TRY_VOID(restore_registers(process.threads[i], capture.state.threads[i], capture.home_registers[i]));
  return {};
}

Result<uint64_t> calls_accepted(int pid, uint64_t window) {
  TRY(ProcessMemory memory, ProcessMemory::open(pid));
  uint64_t sum = 0;
  for (int i = 0; i < kSlotCount; ++i) {
    uint64_t at = slot_address(window, i);
    Result<AgentSlot> slot = memory.read_value<AgentSlot>(at);
    if (!slot) continue;  // not mapped
    sum += slot->calls_accepted;
  }
  return sum;
}

}  // namespace mosix
