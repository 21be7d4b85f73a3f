// Direct calls: a guest thread asks its deputy itself, over its own channel, without a trap (libmosix/agent/direct.cc).
// Here: how a thread gets its direct path, and how the channel is taken back from it.
//
// The laws: while a thread may be in a direct call, nobody here reads its channel, nobody captures it, and no signal is
// put into it. Whoever wants one of these closes the path and waits for the end of the call (shut_direct), or finds the
// path closed already, as it is while a worker serves a trapped call and while the channel watcher listens.
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "libmosix/agent/agent_image.h"
#include "libmosix/common/features.h"
#include "libmosix/common/log.h"
#include "remote/batch.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int kEndLimitMs = 5000;
constexpr int kKickEveryMs = 5;
constexpr uint64_t kAllNumbers = ~0u;

/// Channels stand at the end of the guest's own table, where no descriptor of a mapped file is put.
int first_channel_number(int outer_pid) {
  struct rlimit limit {};
  if (prlimit(outer_pid, RLIMIT_NOFILE, nullptr, &limit) != 0) return -1;
  constexpr rlim_t kEnough = 1 << 16;
  limit.rlim_max = std::min(limit.rlim_max, std::max(limit.rlim_cur, kEnough));
  limit.rlim_cur = limit.rlim_max;
  if (prlimit(outer_pid, RLIMIT_NOFILE, &limit, nullptr) != 0) return -1;
  return static_cast<int>(limit.rlim_cur) - kSlotCount;
}

/// Signals of CPU time are this kernel's own, and would come in the middle of a direct call.
bool counts_cpu_time(int outer_pid) {
  struct rlimit limit {};
  return prlimit(outer_pid, RLIMIT_CPU, nullptr, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY;
}

/// In what counts; what stands in registers that the call does not look at may be another each time.
bool is_same_call(const CallBody& direct, const PendingCall& trapped) {
  const SyscallRow& row = syscall_row(direct.number);
  for (size_t i = 0; i < row.args.size(); ++i)
    if (row.args[i].kind != ArgKind::kNone && direct.args[i] != trapped.args()[i]) return false;
  return direct.number == trapped.number();
}

uint64_t directory_entry(const Guest& guest, int tid) {
  return guest.window + kDirectDirectory + static_cast<uint64_t>(tid) % kDirectEntries * sizeof(DirectEntry);
}

/// The caller is in a call of its own: without it nobody can make a second thread meanwhile.
Status note_sole_thread(Guest& guest, const GuestThread& thread) {
  {
    std::lock_guard lock(guest.mutex);
    if (guest.shares_memory || guest.threads.size() != 1) return {};
  }
  uint32_t sole = static_cast<uint32_t>(thread.slot) + 1;
  return write_memory(guest.outer_pid, guest.window + kDirectSole, &sole, sizeof sole);
}

}  // namespace

/// Before another thread or process runs in the guest's memory.
Status Supervisor::forget_sole_thread(const Guest& guest) {
  if (guest.first_channel < 0) return {};
  uint32_t none = 0;
  return write_memory(guest.outer_pid, guest.window + kDirectSole, &none, sizeof none);
}

/// The thread has trapped to ask for it. The answer is the address to call, or ENOSYS.
void Supervisor::enable_direct(GuestThread& thread, PendingCall& call) {
  Guest& guest = *thread.guest;
  auto enabled = [&]() -> Status {
    if (!feature_enabled("fast_path")) return fail(ENOSYS, "switched off");
    if (guest.no_direct || counts_cpu_time(guest.outer_pid)) return fail(ENOSYS, "timers of CPU time");
    if (guest.has_bound_descriptor) return fail(ENOSYS, "a descriptor of a mapped file");
    if (guest.has_proc_descriptor) return fail(ENOSYS, "a descriptor of a file in /proc");
    int first = first_channel_number(guest.outer_pid);
    if (first < 3) return fail(ENOSYS, "limit of descriptors");
    uint64_t area = guest.window + kDirectAreas + static_cast<uint64_t>(thread.slot) * kDirectAreaStride;
    DirectEntry entry{};
    TRY_VOID(read_memory(guest.outer_pid, directory_entry(guest, thread.tid), &entry, sizeof entry));
    if (entry.tid != 0 && guest.thread(static_cast<int>(entry.tid)) != nullptr &&
        entry.tid != static_cast<uint32_t>(thread.tid))
      return fail(ENOSYS, "another thread has its place");
    if (thread.direct == nullptr) {
      std::unique_lock tracing = lock_tracer(thread);
      if (!tracing) return fail(kFrozen, "the guest is being moved");
      std::lock_guard one_at_a_time(
          guest.batch_mutex);  // the number that the memory has for a moment is one for all
      int number = first + thread.slot;
      TRY(std::unique_ptr<DirectPath> path, DirectPath::create(guest.epoch, number));
      TRY_VOID(call.give_descriptor(thread.channel.get(), number));
      TRY_VOID(call.give_descriptor(path->take_memory().get(), first - 1));
      guest.first_channel = first;
      TRY(Tracee tracee, seize_caller(thread, call));
      tracee.interrupt();
      call.answer(-ENOSYS);  // for now
      TRY(StopInfo stop, tracee.wait_stop(kStageTimeoutMs));
      if (stop.kind != StopKind::kInterrupt) return fail(ESRCH, stop.text());
      auto memory = static_cast<uint64_t>(first - 1);
      Batch batch(guest.window, guest.outer_pid);
      batch.add(SYS_mmap,
                {area, kDirectAreaBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0});
      batch.add(SYS_close, {memory});
      thread.led = true;
      Status mapped = batch.run(tracee);
      thread.led = false;
      TRY_VOID(mapped);
      entry = {static_cast<uint32_t>(thread.tid), static_cast<uint32_t>(thread.slot)};
      TRY_VOID(write_memory(guest.outer_pid, directory_entry(guest, thread.tid), &entry, sizeof entry));
      TRY_VOID(note_sole_thread(guest, thread));
      TRY(user_regs_struct registers, tracee.registers());
      registers.rax = guest.window + kAgentImage.direct;
      TRY_VOID(tracee.set_registers(registers));
      call.note_result(static_cast<int64_t>(registers.rax));
      std::lock_guard lock(thread.mutex);
      thread.direct_owner = std::move(path);
      thread.direct = thread.direct_owner.get();
    }
    return {};
  }();
  if (!enabled && enabled.error().code == kFrozen)
    return answer_when_interrupted(thread, call, kErestartnointr);
  if (!enabled) {
    log_debug("no direct calls for thread " + std::to_string(thread.tid) + ": " + enabled.error().message());
    return call.answer(-ENOSYS);
  }
  call.answer(static_cast<int64_t>(guest.window + kAgentImage.direct));
}

/// A call that went out directly and whose answer is still to come, or is another than a plain result: the same
/// call, trapped now. True: it is answered.
bool Supervisor::adopt_direct_call(GuestThread& thread, PendingCall& call) {
  DirectPath::HandedOver direct = thread.direct.load()->take_over();
  CallPlan plan = plain_plan(direct.call.number, {});
  std::copy(std::begin(direct.call.args), std::end(direct.call.args), std::begin(plan.body.args));
  bool same = is_same_call(direct.call, call);
  {
    std::lock_guard lock(thread.mutex);
    thread.inbox = std::move(direct.received);
    thread.in_flight = direct.sequence;
    thread.exchanging = true;
    thread.changed.notify_all();
  }
  Result<CallReply> reply = await_reply(thread, plan);
  if (reply && !same) {
    // Not to be seen from a guest that keeps to the agent's rules. Its call has been made, and nobody asks for it.
    log_info("guest " + std::to_string(thread.guest->pid) + " does not want the answer to its direct call");
    return false;
  }
  return finish_call(thread, call, plan, reply);
}

/// A thread that waits for its deputy by itself hands the waiting over. The caller has the right to trace it. For one that
/// is in no direct call, or not that far, nothing changes.
void Supervisor::kick_direct(GuestThread& thread) {
  std::unique_lock lock(thread.mutex);
  if (thread.in_call || thread.ended) return;
  Result<Tracee> tracee = Tracee::seize(thread.outer_tid);
  if (!tracee) return;
  tracee->interrupt();
  // If it has trapped by now, the worker answers that by a restart, and it stops in any case.
  thread.interrupted = true;
  thread.changed.notify_all();
  lock.unlock();
  Result<StopInfo> stop = tracee->wait_stop(kEndLimitMs);
  {
    // Before it goes on: restart codes mean nothing to it any more then.
    std::lock_guard again(thread.mutex);
    thread.interrupted = false;
  }
  if (!stop || stop->kind != StopKind::kInterrupt) return;
  Result<user_regs_struct> registers = tracee->registers();
  if (!registers) return;
  uint64_t window = thread.guest->window;
  bool before = registers->rip == window + kAgentImage.direct_receive_check;
  auto result = static_cast<int64_t>(registers->rax);
  bool interrupted = registers->rip == window + kAgentImage.direct_receive_end &&
                     static_cast<int64_t>(registers->orig_rax) >= 0 && result <= kErestartsys &&
                     result >= kErestartRestartblock;
  if (!before && !interrupted) return;
  registers->rip = window + kAgentImage.direct_receive_abort;
  registers->orig_rax = ~0ull;
  tracee->set_registers(*registers);
}

/// No direct call of the thread is under way when this returns, and none begins until its next trapped call is over. The
/// caller has the right to trace it.
Status Supervisor::shut_direct(GuestThread& thread) {
  DirectPath* direct = thread.direct;
  if (direct == nullptr || direct->close()) return {};
  auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(kEndLimitMs);
  while (direct->in_call() && !thread.ended) {
    if (std::chrono::steady_clock::now() > limit) return fail(EBUSY, "a thread does not end its direct call");
    kick_direct(thread);
    direct->wait_for_end(kKickEveryMs);
  }
  // What it has handed over, it traps for at once; the worker has it then.
  std::unique_lock lock(thread.mutex);
  bool taken = thread.changed.wait_until(lock, limit, [&] { return thread.ended || !direct->handed_over(); });
  if (!taken) return fail(EBUSY, "a thread does not ask for the answer to its direct call");
  return {};
}

/// From now on this kernel may send the guest signals of its own, which must not meet a direct call.
Status Supervisor::end_direct_calls(GuestThread& caller) {
  Guest& guest = *caller.guest;
  guest.no_direct = true;
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(guest.mutex);
    for (auto& [tid, thread] : guest.threads) threads.push_back(thread);
  }
  for (auto& thread : threads) {
    if (thread.get() == &caller || thread->direct.load() == nullptr) continue;
    std::unique_lock tracing = lock_tracer(*thread);
    if (!tracing) return fail(kFrozen, "the guest is being moved");
    TRY_VOID(shut_direct(*thread));
  }
  return {};
}

/// Its copies of the parent's channels and areas go before it makes a step. `child` is stopped, and known.
void Supervisor::drop_inherited_paths(GuestThread& thread, Tracee& child) {
  Guest& guest = *thread.guest;
  Batch batch(guest.window, guest.outer_pid);
  batch.add(SYS_munmap, {guest.window + kDirectAreas, kSlotCount * kDirectAreaStride});
  batch.add(SYS_madvise, {guest.window + kDirectDirectory, kDirectDirectoryBytes, MADV_DONTNEED});
  batch.add(SYS_close_range, {0, kAllNumbers, 0});
  thread.led = true;
  Status dropped = batch.run(child);
  thread.led = false;
  if (!dropped)
    log_error("guest " + std::to_string(guest.pid) + ": its parent's channels: " + dropped.error().message());
}

}  // namespace mosix
