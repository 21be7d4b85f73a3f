#include "deputy/capture.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include <array>

#include "deputy/areas.h"
#include "libmosix/process/advice.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/syscalls/partial_transfer.h"

namespace mosix {
namespace {

constexpr int64_t kEintr = -4, kRestartSys = -512, kRestartNoHand = -514, kRestartBlock = -516;
constexpr int kSignals = 64;
constexpr size_t kTimerWords = 8;  // two itimervals

/// struct sigaltstack and struct sigaction as the kernel has them.
struct KernelAltstack {
  uint64_t sp;
  int32_t flags;
  int32_t padding;
  uint64_t size;
};

int64_t clock_ns(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

bool is_sleep(uint64_t number) { return number == SYS_nanosleep || number == SYS_clock_nanosleep; }

/// A restart block of home's kernel, in the kernel thread that has it (the deputy's, while the guest is away), is gone
/// on with for these only. Which call restart_syscall stands for is not always known; then it may be one of them.
bool goes_on_by_block(uint64_t number) { return is_sleep(number) || number == SYS_restart_syscall; }

/// The number that is loaded right before the instruction (b8 imm32, 0f 05), as compilers and most libcs do it; that of
/// restart_syscall if the code looks otherwise.
uint64_t number_before(uint64_t rip, const ProcessMemory& memory) {
  uint8_t code[7];
  if (!memory.read(rip - sizeof code, code, sizeof code) || code[0] != 0xb8) return SYS_restart_syscall;
  uint32_t number;
  memcpy(&number, code + 1, sizeof number);
  return number;
}

/// Which call's restart block an interrupted thread has: 0 for none.
uint64_t call_of_block(const user_regs_struct& registers, const ProcessMemory& memory,
                       const CallsSinceHome& calls) {
  if (static_cast<int64_t>(registers.rax) != kRestartBlock) return 0;
  if (registers.orig_rax != SYS_restart_syscall) return registers.orig_rax;
  for (const CallAtHome& own : calls.own)
    if (own.contains(registers)) return own.original.orig_rax;
  for (const user_regs_struct& sleep : calls.sleeps)
    if (same_call(sleep, registers)) return sleep.orig_rax;
  return number_before(registers.rip, memory);
}

/// A thread that is about to make restart_syscall is in a call still, and has a restart block.
void go_back_into_call(user_regs_struct& registers, const ProcessMemory& memory) {
  constexpr uint8_t kSyscall[] = {0x0f, 0x05};
  uint8_t code[sizeof kSyscall];
  if (registers.rax != SYS_restart_syscall || !memory.read(registers.rip, code, sizeof code)) return;
  if (memcmp(code, kSyscall, sizeof code) != 0) return;
  registers.rip += sizeof code;
  registers.orig_rax = SYS_restart_syscall;
  registers.rax = static_cast<uint64_t>(kRestartBlock);
}

/// For a sleep that has just been interrupted: its end, if the kernel has told the program what is left of it.
int64_t end_of_sleep(uint64_t number, const user_regs_struct& registers, const ProcessMemory& memory) {
  timespec left{};
  uint64_t address = rest_address(number, registers);
  if (address == 0 || !memory.read(address, &left, sizeof left)) return 0;
  return clock_ns(CLOCK_MONOTONIC) + left.tv_sec * 1'000'000'000 + left.tv_nsec;
}

Result<ThreadState> capture_thread(Tracee& tracee, int pid, user_regs_struct* home) {
  ThreadState thread;
  thread.tid = tracee.tid();
  TRY_VOID(tracee.abort_rseq_section());
  TRY(*home, tracee.registers());
  TRY(std::vector<std::byte> xstate, tracee.xstate());
  auto* first = reinterpret_cast<const uint8_t*>(xstate.data());
  thread.xstate.assign(first, first + xstate.size());
  TRY(thread.signal_mask, tracee.signal_mask());
  TRY(RseqConfiguration rseq, tracee.rseq_configuration());
  thread.rseq_address = rseq.address;
  thread.rseq_size = rseq.bytes;
  thread.rseq_signature = rseq.signature;
  TRY(auto robust, tracee.robust_list());
  thread.robust_list = robust.first;
  thread.robust_list_size = robust.second;
  TRY(thread.name, read_comm(pid, tracee.tid()));
  return thread;
}

/// mlockall(MCL_FUTURE) is nowhere to be read: what is mapped then is locked, and MADV_DONTNEED refuses that.
Status refuse_future_locks(Tracee& tracee, const ProcessMemory& memory, AgentPlace place) {
  Batch batch(place);
  uint64_t probe = large_area_address(place.window, place.slot);
  size_t mapped = batch.add(SYS_mmap, probe, 4096, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, ~0ull, 0);
  size_t told = batch.add(SYS_madvise, probe, 4096, MADV_DONTNEED);
  batch.add(SYS_munmap, probe, 4096);
  TRY_VOID(batch.run(tracee, memory));
  bool over_limit = batch.result(mapped) == -EAGAIN;
  if (over_limit || (batch.result(mapped) >= 0 && batch.result(told) == -EINVAL))
    return fail(ENOTSUP, "it keeps all memory that it will ever have in place (mlockall with MCL_FUTURE)");
  return {};
}

/// Alternate stack and tid address of one thread; for the first also all actions and the break.
struct Queries {
  Batch batch;
  uint64_t altstack, tid_address;
  std::vector<uint64_t> actions;
  uint64_t timers = 0;
  size_t brk_call = 0;

  Queries(AgentPlace place, bool first) : batch(place) {
    altstack = batch.place_room(sizeof(KernelAltstack));
    tid_address = batch.place_room(8);
    batch.add(SYS_sigaltstack, 0, altstack);
    batch.add(SYS_prctl, PR_GET_TID_ADDRESS, tid_address);
    if (!first) return;
    for (int signal = 1; signal <= kSignals; ++signal) {
      actions.push_back(batch.place_room(sizeof(SignalAction)));
      batch.add(SYS_rt_sigaction, static_cast<uint64_t>(signal), 0, actions.back(), 8);
    }
    timers = batch.place_room(kTimerWords * sizeof(uint64_t));
    batch.add(SYS_getitimer, ITIMER_VIRTUAL, timers);
    batch.add(SYS_getitimer, ITIMER_PROF, timers + kTimerWords / 2 * sizeof(uint64_t));
    brk_call = batch.add(SYS_brk, 0);
  }
};
static_assert(sizeof(SignalAction) == 32, "handler, flags, restorer, mask: the kernel's order");

Status query_thread(Tracee& tracee, const ProcessMemory& memory, AgentPlace place, bool first,
                    ThreadState& thread, ProcessState& state) {
  Queries queries(place, first);
  TRY_VOID(queries.batch.run(tracee, memory));
  if (queries.batch.first_error() != 0)
    return fail(queries.batch.first_error(), "ask the thread for its kernel state");
  auto altstack = queries.batch.data_at<KernelAltstack>(queries.altstack);
  thread.altstack_sp = altstack.sp;
  thread.altstack_flags = static_cast<uint32_t>(altstack.flags);
  thread.altstack_size = altstack.size;
  thread.clear_child_tid = queries.batch.data_at<uint64_t>(queries.tid_address);
  if (!first) return {};
  for (uint64_t at : queries.actions) state.actions.push_back(queries.batch.data_at<SignalAction>(at));
  auto timers = queries.batch.data_at<std::array<uint64_t, kTimerWords>>(queries.timers);
  state.cpu_timers.assign(timers.begin(), timers.end());
  state.mm.assign(1, static_cast<uint64_t>(queries.batch.result(queries.brk_call)));
  return {};
}

}  // namespace

void mend_interrupted_call(user_regs_struct& registers, uint64_t block_call) {
  auto number = static_cast<int64_t>(registers.orig_rax);
  auto result = static_cast<int64_t>(registers.rax);
  if (number < 0) return;
  // Calls that say EINTR outright (epoll_wait, semop): our interrupt is no signal, so they start again. Not
  // close, which has closed already.
  if (result == kEintr && number != SYS_close) registers.rax = static_cast<uint64_t>(kRestartNoHand);
  if (result != kRestartBlock || goes_on_by_block(block_call)) return;
  if (block_call != 0) registers.orig_rax = block_call;
  registers.rax = static_cast<uint64_t>(kRestartNoHand);
}

uint64_t rest_address(uint64_t number, const user_regs_struct& registers) {
  return number == SYS_nanosleep ? registers.rsi : number == SYS_clock_nanosleep ? registers.r10 : 0;
}

namespace {

/// Memory of the stopped process, for what reads arguments.
class StoppedMemory : public GuestMemory {
 public:
  explicit StoppedMemory(const ProcessMemory& memory) : memory_(memory) {}
  Status read(uint64_t address, void* data, size_t bytes) override {
    return memory_.read(address, data, bytes);
  }
  Status write(uint64_t address, const void* data, size_t bytes) override {
    return memory_.write(address, data, bytes);
  }
  size_t read_some(uint64_t address, void* data, size_t bytes) override {
    return memory_.read_some(address, data, bytes).value_or(0);
  }

 private:
  const ProcessMemory& memory_;
};

/// A write, or a receive that waits for all, that our interrupt has ended in the middle is made again away, for the
/// rest. (One that was short for a reason of its own finds that reason again, and is as short.)
uint64_t make_broken_call_again(user_regs_struct& registers, const ProcessMemory& memory) {
  auto result = static_cast<int64_t>(registers.rax);
  if (static_cast<int64_t>(registers.orig_rax) < 0 || result <= 0) return 0;
  StoppedMemory arguments(memory);
  std::array<uint64_t, 6> args{registers.rdi, registers.rsi, registers.rdx,
                               registers.r10, registers.r8,  registers.r9};
  uint64_t moved = registers.rax;
  if (moved >= bytes_to_give(registers.orig_rax, args, arguments) &&
      moved >= bytes_to_receive(registers.orig_rax, args, arguments))
    return 0;
  registers.rax = static_cast<uint64_t>(kRestartSys);
  return moved;
}

}  // namespace

user_regs_struct registers_of(const ThreadState& thread) {
  user_regs_struct registers{};
  if (thread.registers.size() == sizeof registers)
    memcpy(&registers, thread.registers.data(), sizeof registers);
  return registers;
}

Bytes bytes_of(const user_regs_struct& registers) {
  auto* first = reinterpret_cast<const uint8_t*>(&registers);
  return Bytes(first, first + sizeof registers);
}

Status capture_threads(StoppedProcess& process, const ProcessMemory& memory, const CallsSinceHome& calls,
                       Capture& capture) {
  for (Tracee& tracee : process.threads) {
    user_regs_struct home{};
    TRY(ThreadState thread, capture_thread(tracee, process.pid, &home));
    thread.slot = static_cast<int32_t>(capture.state.threads.size());
    go_back_into_call(home, memory);
    user_regs_struct away = home;
    uint64_t block_call = call_of_block(home, memory, calls);
    if (goes_on_by_block(block_call)) {
      thread.sleep_call = block_call;
      thread.deadline_ns = end_of_sleep(block_call, home, memory);
    }
    mend_interrupted_call(away, block_call);
    if (static_cast<int64_t>(home.rax) == kEintr) home = away;
    thread.moved_bytes = make_broken_call_again(away, memory);
    bool made_again = static_cast<int64_t>(away.rax) < 0;
    // A wait for what is left of a limit may stand before the rest of a receive.
    while (const CallAtHome* own = made_again ? own_call_of(calls.own, away) : nullptr) {
      thread.moved_bytes += own->done;
      thread.deadline_ns = own->deadline_ns;
    }
    thread.registers = bytes_of(away);
    capture.home_registers.push_back(home);
    capture.state.threads.push_back(std::move(thread));
  }
  return {};
}

Status capture_kernel_state(StoppedProcess& process, const ProcessMemory& memory, uint64_t window,
                            Capture& capture) {
  for (size_t i = 0; i < process.threads.size(); ++i) {
    ThreadState& thread = capture.state.threads[i];
    AgentPlace place{window, thread.slot};
    Status asked = query_thread(process.threads[i], memory, place, i == 0, thread, capture.state);
    if (asked && i == 0) asked = refuse_future_locks(process.threads[i], memory, place);
    TRY_VOID(process.threads[i].set_registers(capture.home_registers[i]));
    if (!asked) return asked;
  }
  return {};
}

Status capture_process(const ProcessMemory& memory, const std::vector<MapEntry>& maps, uint64_t window,
                       Capture& capture) {
  int pid = memory.pid();
  ProcessState& state = capture.state;
  state.pid = pid;
  state.window_base = window;
  AreaList list = describe_areas(memory, maps, window, capture.bound);
  state.areas = std::move(list.areas);
  TRY_VOID(note_advice(pid, state.areas));
  capture.whole_areas = std::move(list.whole);
  TRY(ProcStat stat, read_proc_stat(living_thread(pid)));
  uint64_t brk = state.mm.empty() ? 0 : state.mm[0];
  state.mm = {stat.start_code,  stat.end_code,  stat.start_data, stat.end_data,  stat.start_brk, brk,
              stat.start_stack, stat.arg_start, stat.arg_end,    stat.env_start, stat.env_end};
  TRY(std::string auxv, read_memory_file(pid, "auxv"));
  state.auxv.assign(auxv.begin(), auxv.end());
  rlimit stack{};
  if (prlimit(pid, RLIMIT_STACK, nullptr, &stack) != 0) return fail_errno("read the stack limit");
  state.stack_limit = stack.rlim_cur;
  state.monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  state.boottime_ns = clock_ns(CLOCK_BOOTTIME);
  return {};
}

}  // namespace mosix
