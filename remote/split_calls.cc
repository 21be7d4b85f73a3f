// Calls in which both nodes take part. The rule for state that lives on both sides (signal actions, masks,
// names): home first, for home says whether the call is legal at all and may deliver signals by it; then the
// guest's own kernel makes the very same call here, reading the same memory.
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "libmosix/agent/agent.h"
#include "libmosix/agent/agent_image.h"
#include "libmosix/common/log.h"
#include "libmosix/process/proc_stat.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

struct KernelSigaction {
  uint64_t handler, flags, restorer, mask;
};
constexpr uint64_t kSaRestorer = 0x04000000;
/// Of the guest's flags those that home's kernel must act on; its handler always runs on the agent's stack.
constexpr uint64_t kFlagsAtHome = SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_NOCLDSTOP | SA_NOCLDWAIT;

/// ucontext.uc_sigmask in a signal frame, seen from the stack pointer at rt_sigreturn.
constexpr uint64_t kFrameMaskOffset = 296;

/// The stack pointer of a thread that is blocked in a notification: last but one field of /proc/.../syscall. Who has
/// been woken by the notification may be here before the thread has gone to sleep (as a rule, where the kernel has no
/// SYNC_WAKE_UP); until then the file says "running".
Result<uint64_t> stack_pointer(const PendingCall& call, int outer_tid) {
  constexpr int kYields = 100;
  constexpr timespec kPause{0, 100'000};
  TRY(std::string text, read_proc_file(outer_tid, "syscall"));
  for (int i = 0; text.rfind("running", 0) == 0 && call.valid(); ++i) {
    if (i < kYields)
      sched_yield();
    else
      nanosleep(&kPause, nullptr);
    TRY(text, read_proc_file(outer_tid, "syscall"));
  }
  size_t last = text.rfind(" 0x");
  size_t before = last == std::string::npos || last == 0 ? last : text.rfind(" 0x", last - 1);
  if (before == std::string::npos) return fail(EPROTO, "/proc/TID/syscall: " + text);
  return strtoull(text.c_str() + before + 1, nullptr, 16);
}

/// Time that a process of ours has used here, by the kernel's clock for it.
uint64_t process_cpu_ns(int outer_pid) {
  auto clock = static_cast<clockid_t>((~static_cast<unsigned>(outer_pid) << 3) | 2u);
  timespec used{};
  if (clock_gettime(clock, &used) != 0) return 0;
  return static_cast<uint64_t>(used.tv_sec) * 1000000000u + static_cast<uint64_t>(used.tv_nsec);
}

/// The same of one thread. Its clock is for its own process alone to read; the scheduler's figures say as much.
uint64_t thread_cpu_ns(int outer_tid, const Result<ProcStat>& stat) {
  if (Result<std::string> text = read_proc_file(outer_tid, "schedstat"))
    return strtoull(text->c_str(), nullptr, 10);
  uint64_t tick_ns = 1000000000u / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return stat ? (stat->utime + stat->stime) * tick_ns : 0;
}

void add_timeval(uint8_t* at, uint64_t ns) {
  timeval value;
  memcpy(&value, at, sizeof value);
  uint64_t total = static_cast<uint64_t>(value.tv_usec) + ns / 1000;
  value.tv_sec += static_cast<time_t>(total / 1000000);
  value.tv_usec = static_cast<suseconds_t>(total % 1000000);
  memcpy(at, &value, sizeof value);
}

/// Also of those that the thread's own mask blocks.
bool has_unblocked_signal(GuestThread& thread, uint64_t mask) {
  std::lock_guard lock(thread.mutex);
  for (const WaitingSignal& signal : thread.waiting) {
    int number;
    memcpy(&number, signal.info.bytes, sizeof number);
    if ((mask >> (number - 1) & 1) == 0) return true;
  }
  return false;
}

}  // namespace

/// User and system part, in the proportion of the kernel's ticks.
CpuTimes cpu_times(const Guest& guest, const GuestThread* thread) {
  int outer = thread != nullptr ? thread->outer_tid : guest.outer_pid;
  auto stat = thread != nullptr ? read_thread_stat(guest.outer_pid, outer) : read_proc_stat(outer);
  uint64_t total = thread != nullptr ? thread_cpu_ns(outer, stat) : process_cpu_ns(outer);
  uint64_t user_ticks = stat ? stat->utime : 0, system_ticks = stat ? stat->stime : 0;
  uint64_t ticks = user_ticks + system_ticks;
  CpuTimes times;
  times.system_ns = ticks == 0 ? 0 : total / ticks * system_ticks;  // never more than the total
  times.user_ns = total - times.system_ns;
  if (thread == nullptr) {
    times.user_ns += guest.cpu_before.user_ns;
    times.system_ns += guest.cpu_before.system_ns;
  } else {
    times.user_ns += thread->cpu_before_ns;
  }
  return times;
}

CpuFigures cpu_figures(Guest& guest) {
  {
    std::lock_guard lock(guest.mutex);
    if (guest.cpu_at_end) return *guest.cpu_at_end;
  }
  CpuTimes own = cpu_times(guest, nullptr);
  auto status = read_status_fields(living_thread(guest.outer_pid));
  std::lock_guard lock(guest.mutex);
  CpuFigures figures = guest.children;
  figures.peak_kib = std::max(guest.cpu_before.peak_kib, status ? status->vm_hwm_kb : 0);
  figures.user_ns = own.user_ns;
  figures.system_ns = own.system_ns;
  return figures;
}

void Supervisor::split_call(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  switch (row.split) {
    case Split::kMmap:
      return map_memory(thread, call);
    case Split::kClone:
    case Split::kFork:
    case Split::kVfork:
    case Split::kClone3:
      return clone_call(thread, call, row.split);
    case Split::kExecve:
      return exec_call(thread, call, row, false);
    case Split::kExecveat:
      return exec_call(thread, call, row, true);
    case Split::kExit:
      return exit_thread(thread, call);
    case Split::kExitGroup:
      return exit_group(thread, call);
    case Split::kSigaction:
      return set_action(thread, call, row);
    case Split::kSigprocmask:
      return set_mask(thread, call);
    case Split::kSigreturn:
      return return_from_handler(thread, call);
    case Split::kSigsuspend:
      return suspend(thread, call, row);
    case Split::kTimedMask:
      return timed_with_mask(thread, call, row);
    case Split::kItimer:
      // ITIMER_REAL belongs to home's clock; the two that count CPU time to where it is spent.
      if (call.args()[0] == ITIMER_REAL) return forward_call(thread, call, row);
      if (!end_direct_calls(thread)) return answer_when_interrupted(thread, call, kErestartnointr);
      return call.let_run_here();
    case Split::kTimes:
      return times(thread, call, row);
    case Split::kWait:
      return wait_for_child(thread, call, row);
    case Split::kRestart:
      return restart(thread, call);
    case Split::kRlimit:
      return set_limit(thread, call, row);
    case Split::kPrctl:
      return forward_then_run_here(thread, call, row);
    case Split::kMemory:
      return judge_memory_call(thread, call, row);
    case Split::kLock:
      return lock_memory(thread, call, row);
    case Split::kProtectionKey:
      return protection_key(thread, call, row);
    case Split::kNone:
      break;
  }
  log_error("call " + std::string(row.name) + " is split, but no handler is named");
  bring_home(thread, call, std::string(row.name));
}

void Supervisor::judge_memory_call(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  auto is_ours = [&](uint64_t start, uint64_t bytes) { return thread.guest->is_ours(start, bytes); };
  const auto& args = call.args();
  switch (row.number) {
    case SYS_munmap:
    case SYS_mprotect:
    case SYS_madvise:
    case SYS_msync:
    case SYS_mincore:
    case SYS_remap_file_pages:
      // No program has a mapping there: to it, the range is what an empty one is.
      if (is_ours(args[0], args[1])) return call.answer(row.number == SYS_munmap ? 0 : -ENOMEM);
      break;
    case SYS_mremap:
      if (is_ours(args[0], args[1])) return call.answer(-EFAULT);
      if ((args[3] & 2 /* MREMAP_FIXED */) != 0 && is_ours(args[4], args[2])) return call.answer(-ENOMEM);
      break;
    default:
      break;
  }
  call.let_run_here();
}

/// Programs ask for a key to see whether there are any (V8 does, whatever it then runs): where home's processor has none,
/// they go on without. A key that home has given is given back, for the call is made again there.
void Supervisor::protection_key(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  const auto& args = call.args();
  if (row.number == SYS_pkey_mprotect) {
    if (static_cast<int>(args[3]) != -1) return bring_home(thread, call, std::string(row.name));
    if (thread.guest->is_ours(args[0], args[1])) return call.answer(-ENOMEM);
    return call.let_run_here();
  }
  CallReply reply;
  if (!ask_for_call(thread, call, plain_plan(SYS_pkey_alloc, {args[0], args[1]}), kErestartnointr, &reply))
    return;
  if (reply.result < 0) return answer_and_deliver(thread, call, Answer::value(reply.result));
  Result<CallReply> freed =
      exchange_to_end(thread, plain_plan(SYS_pkey_free, {static_cast<uint64_t>(reply.result)}));
  if (!freed) return lose_channel(thread, call, freed.error());
  bring_home(thread, call, std::string(row.name));
}

void Supervisor::forward_then_run_here(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  Answer here = Answer::here();
  while (!finish_call(thread, call, *plan, exchange(thread, *plan), &here)) {
  }
}

/// Limits are home's. Those on what is used up here (processor time, address space) are set on the remote as well.
void Supervisor::set_limit(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  const auto& args = call.args();
  Guest& guest = *thread.guest;
  bool prlimit_call = row.number == SYS_prlimit64;
  bool own = !prlimit_call || args[0] == 0 || static_cast<int>(args[0]) == guest.pid;
  auto resource = static_cast<int>(args[prlimit_call ? 1 : 0]);
  uint64_t address = row.number == SYS_getrlimit ? 0 : args[prlimit_call ? 2 : 1];
  struct rlimit limit {};
  NotifiedMemory memory(thread.outer_tid);
  bool counts_here =
      resource == RLIMIT_CPU || resource == RLIMIT_AS || resource == RLIMIT_DATA || resource == RLIMIT_STACK;
  if (own && resource == RLIMIT_CPU && address != 0 && !end_direct_calls(thread))
    return answer_when_interrupted(thread, call, kErestartnointr);
  bool sets = own && counts_here && address != 0 && memory.read(address, &limit, sizeof limit).has_value();
  Result<CallPlan> plan = plan_call(row, args, memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  for (;;) {
    Result<CallReply> reply = exchange(thread, *plan);
    if (sets && reply && reply->verdict == Verdict::kDone && reply->result == 0)
      prlimit(guest.outer_pid, static_cast<__rlimit_resource>(resource), &limit, nullptr);
    if (finish_call(thread, call, *plan, reply)) return;
  }
}

void Supervisor::set_action(GuestThread& thread, PendingCall& call, const SyscallRow&) {
  const auto& args = call.args();
  KernelSigaction action{};
  NotifiedMemory memory(thread.outer_tid);
  // A question, or what this kernel refuses by itself.
  if (args[1] == 0 || args[3] != 8 || !memory.read(args[1], &action, sizeof action))
    return call.let_run_here();
  bool handled = action.handler != 0 && action.handler != 1;
  KernelSigaction at_home = action;
  if (handled) {
    at_home.handler = thread.guest->window + kAgentImage.on_signal;
    at_home.restorer = thread.guest->window + kAgentImage.restorer;
    at_home.flags = (action.flags & kFlagsAtHome) | SA_SIGINFO | kSaRestorer;
  }
  CallPlan plan = buffer_plan(SYS_rt_sigaction, {args[0], 0, 0, 8, 0, 0}, 1, &at_home, sizeof at_home, -1, 0,
                              OutRule::kFixed, 0);
  Answer here = Answer::here();
  while (!finish_call(thread, call, plan, exchange(thread, plan), &here)) {
  }
}

void Supervisor::change_mask_at_home(GuestThread& thread, PendingCall& call, uint64_t how, uint64_t set) {
  CallPlan plan =
      buffer_plan(SYS_rt_sigprocmask, {how, 0, 0, 8, 0, 0}, 1, &set, sizeof set, -1, 0, OutRule::kFixed, 0);
  Answer here = Answer::here();
  while (!finish_call(thread, call, plan, exchange(thread, plan), &here)) {
  }
}

void Supervisor::set_mask(GuestThread& thread, PendingCall& call) {
  const auto& args = call.args();
  uint64_t set = 0;
  NotifiedMemory memory(thread.outer_tid);
  if (args[1] == 0 || args[3] != 8 || !memory.read(args[1], &set, sizeof set)) return call.let_run_here();
  change_mask_at_home(thread, call, args[0], set);
}

void Supervisor::return_from_handler(GuestThread& thread, PendingCall& call) {
  Result<uint64_t> sp = stack_pointer(call, thread.outer_tid);
  uint64_t mask = 0;
  NotifiedMemory memory(thread.outer_tid);
  // A frame that cannot be read is answered by this kernel with SIGSEGV, as home's would.
  if (!sp || !memory.read(*sp + kFrameMaskOffset, &mask, sizeof mask)) return call.let_run_here();
  change_mask_at_home(thread, call, SIG_SETMASK, mask);
}

void Supervisor::suspend(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  uint64_t mask = 0;
  if (call.args()[1] != 8 || !memory.read(call.args()[0], &mask, sizeof mask)) return call.let_run_here();
  bool waiting;
  {
    std::lock_guard lock(thread.mutex);
    waiting = !thread.waiting.empty();
  }
  if (waiting) return deliver_in_sigsuspend(thread, call);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  for (;;) {
    Result<CallReply> reply = exchange(thread, *plan);
    if (reply && reply->verdict == Verdict::kDone) return deliver_in_sigsuspend(thread, call);
    if (finish_call(thread, call, *plan, reply)) return;
  }
}

void Supervisor::timed_with_mask(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  uint64_t mask_address = call.args()[row.number == SYS_ppoll ? 3 : row.number == SYS_pselect6 ? 5 : 4];
  if (row.number == SYS_pselect6 && mask_address != 0) {
    // A pair of pointer and size.
    uint64_t pack[2] = {};
    if (memory.read(mask_address, pack, sizeof pack)) mask_address = pack[0];
  }
  if (mask_address == 0) return forward_call(thread, call, row);
  // A signal that home took during this call before a move, and that only the call's mask lets through.
  uint64_t mask = 0;
  if (memory.read(mask_address, &mask, sizeof mask) && has_unblocked_signal(thread, mask))
    return deliver_under_mask(thread, call, mask_address);
  for (;;) {
    Result<CallPlan> plan = plan_timed(thread, call, row);
    if (!plan) return bring_home(thread, call, std::string(row.name));
    Result<CallReply> reply = exchange(thread, *plan);
    if (reply && reply->verdict == Verdict::kDone && reply->result == -EINTR) {
      // What is left of the timeout is the program's to see, as after any interruption.
      [[maybe_unused]] Status delivered = deliver_outs(*plan, *reply, memory);
      bool waiting;
      {
        std::lock_guard lock(thread.mutex);
        waiting = !thread.waiting.empty();
      }
      if (waiting) {
        {
          std::lock_guard lock(thread.mutex);
          thread.deadline_ns = 0;
        }
        return deliver_under_mask(thread, call, mask_address);
      }
    }
    if (finish_call(thread, call, *plan, reply)) return end_deadline(thread, call);
  }
}

void Supervisor::times(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, std::string(row.name));
  for (;;) {
    Result<CallReply> reply = exchange(thread, *plan);
    if (reply && reply->verdict == Verdict::kDone && reply->result >= 0 && !reply->outs.empty() &&
        !reply->outs[0].empty()) {
      std::vector<uint8_t>& out = reply->outs[0];
      if (row.number == SYS_getrusage && out.size() >= 32) {
        auto who = static_cast<int>(call.args()[0]);
        if (who == RUSAGE_SELF || who == RUSAGE_THREAD) {
          CpuTimes used = cpu_times(guest, who == RUSAGE_THREAD ? &thread : nullptr);
          add_timeval(out.data(), used.user_ns);
          add_timeval(out.data() + sizeof(timeval), used.system_ns);
          raise_peak(out, cpu_figures(guest).peak_kib);
        } else if (who == RUSAGE_CHILDREN) {
          std::lock_guard lock(guest.mutex);
          add_timeval(out.data(), guest.children.children_user_ns);
          add_timeval(out.data() + sizeof(timeval), guest.children.children_system_ns);
          raise_peak(out, guest.children.children_peak_kib);
        }
      } else if (row.number == SYS_times && out.size() >= sizeof(tms)) {
        CpuFigures used = cpu_figures(guest);
        uint64_t tick = 1000000000u / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
        tms value;
        memcpy(&value, out.data(), sizeof value);
        value.tms_utime += static_cast<clock_t>(used.user_ns / tick);
        value.tms_stime += static_cast<clock_t>(used.system_ns / tick);
        value.tms_cutime += static_cast<clock_t>(used.children_user_ns / tick);
        value.tms_cstime += static_cast<clock_t>(used.children_system_ns / tick);
        memcpy(out.data(), &value, sizeof value);
      } else if (row.number == SYS_clock_gettime && out.size() >= sizeof(timespec)) {
        bool per_thread = call.args()[0] == CLOCK_THREAD_CPUTIME_ID;
        CpuTimes used = cpu_times(guest, per_thread ? &thread : nullptr);
        timespec value;
        memcpy(&value, out.data(), sizeof value);
        uint64_t total = static_cast<uint64_t>(value.tv_nsec) + used.user_ns + used.system_ns;
        value.tv_sec += static_cast<time_t>(total / 1000000000u);
        value.tv_nsec = static_cast<long>(total % 1000000000u);
        memcpy(out.data(), &value, sizeof value);
      }
    }
    if (finish_call(thread, call, *plan, reply)) return;
  }
}

}  // namespace mosix
