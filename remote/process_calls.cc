// Fork, threads, exec, exit: calls that both nodes make, each for its own half of the process. Home goes first:
// it has the pid, the parent, the program file and the last word on whether the call succeeds.
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libmosix/agent/agent.h"
#include "libmosix/common/log.h"
#include "libmosix/common/membership.h"
#include "libmosix/common/net.h"
#include "libmosix/process/proc_stat.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

/// A clone as the guest asked for it, whichever of the four calls it used.
struct CloneOrder {
  uint64_t flags = 0;  ///< without the exit signal
  int exit_signal = 0;
  uint64_t stack = 0;  ///< 0: the parent's
  uint64_t parent_tid = 0, child_tid = 0, tls = 0, pidfd = 0;
  bool plain = true;  ///< nothing that only home could do
};

constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                 CLONE_NEWPID | CLONE_NEWNET | 0x80 /* CLONE_NEWTIME */;
/// What the home half must do natively too: what is shared between parent and child there.
constexpr uint64_t kSharedAtHome =
    CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_IO | CLONE_THREAD | CLONE_SIGHAND;

Result<CloneOrder> read_order(PendingCall& call, Split kind, GuestMemory& memory) {
  const auto& args = call.args();
  CloneOrder order;
  if (kind == Split::kFork || kind == Split::kVfork) {
    order.exit_signal = SIGCHLD;
    if (kind == Split::kVfork) order.flags = CLONE_VM | CLONE_VFORK;
  } else if (kind == Split::kClone) {
    order.flags = args[0] & 0xffffff00u;
    order.exit_signal = static_cast<int>(args[0] & 0xff);
    order.stack = args[1];
    order.parent_tid = args[2];
    order.child_tid = args[3];
    order.tls = args[4];
    order.pidfd = args[2];
  } else {
    clone_args given{};
    uint64_t bytes = std::min<uint64_t>(args[1], sizeof given);
    if (args[1] < 64) return fail(EINVAL, "clone3");
    TRY_VOID(memory.read(args[0], &given, bytes));
    order.flags = given.flags;
    order.exit_signal = static_cast<int>(given.exit_signal);
    order.stack = given.stack == 0 ? 0 : given.stack + given.stack_size;
    order.parent_tid = given.parent_tid;
    order.child_tid = given.child_tid;
    order.tls = given.tls;
    order.pidfd = given.pidfd;
    order.plain = given.set_tid_size == 0 && (given.flags >> 32) == 0;
  }
  order.plain = order.plain && (order.flags & kNamespaces) == 0 && (order.flags & CLONE_PARENT) == 0;
  return order;
}

std::string check(const CloneOrder& order) {
  bool thread = (order.flags & CLONE_THREAD) != 0;
  if (!order.plain) return "clone into another namespace or with a chosen pid";
  if (!thread && (order.flags & CLONE_VM) != 0 && (order.flags & CLONE_VFORK) == 0)
    return "clone of a process that shares memory";
  if (!thread && (order.flags & CLONE_SIGHAND) != 0) return "clone of a process that shares signal handlers";
  return "";
}

bool same_or_left(uint64_t wanted, uint64_t current) {
  auto id = static_cast<uint32_t>(wanted);
  return id == ~0u || id == static_cast<uint32_t>(current);
}

}  // namespace

/// A set-id call that asks for what is already so, as posix_spawn makes with POSIX_SPAWN_RESETIDS (make and
/// shells do, for each child), needs no way home. Saved ids are not asked for: whoever names one goes home.
bool Supervisor::keeps_identity(GuestThread& thread, const PendingCall& call, const SyscallRow& row) {
  const auto& args = call.args();
  bool group = row.number == SYS_setresgid || row.number == SYS_setregid || row.number == SYS_setgid;
  bool user = row.number == SYS_setresuid || row.number == SYS_setreuid || row.number == SYS_setuid;
  if (!group && !user) return false;
  Result<CallReply> real = exchange(thread, plain_plan(group ? SYS_getgid : SYS_getuid, {}));
  Result<CallReply> effective = exchange(thread, plain_plan(group ? SYS_getegid : SYS_geteuid, {}));
  if (!real || !effective || real->verdict != Verdict::kDone || effective->verdict != Verdict::kDone)
    return false;
  auto real_id = static_cast<uint64_t>(real->result), effective_id = static_cast<uint64_t>(effective->result);
  if (row.number == SYS_setresuid || row.number == SYS_setresgid)
    return same_or_left(args[0], real_id) && same_or_left(args[1], effective_id) &&
           static_cast<uint32_t>(args[2]) == ~0u;
  if (row.number == SYS_setreuid || row.number == SYS_setregid)
    return static_cast<uint32_t>(args[0]) == ~0u && same_or_left(args[1], effective_id) &&
           real_id == effective_id;
  // With privilege it sets the saved id as well.
  return effective_id != 0 && real_id == effective_id && same_or_left(args[0], real_id);
}

/// A fork is never undone: home has the child. It connects within microseconds, unless it is stopped by job control
/// first, or killed: ECHILD then, which its parent hears of as of any other child's end.
Result<UniqueFd> Supervisor::wait_for_child(GuestThread& parent, const uint8_t (&token)[16], int child_tid,
                                            bool is_thread) {
  constexpr int kLookMs = 1000;
  for (;;) {
    Result<UniqueFd> channel = wait_for_hello(token, child_tid, 0, kLookMs);
    if (channel || channel.error().code != ETIMEDOUT || parent.ended) return channel;
    if (is_thread) continue;  // it ends with the process, and so does its parent
    CallPlan look = buffer_plan(
        SYS_waitid, {P_PID, static_cast<uint64_t>(child_tid), 0, WEXITED | WNOHANG | WNOWAIT, 0, 0}, -1,
        nullptr, 0, 2, sizeof(siginfo_t), OutRule::kFixed, 1);
    TRY(CallReply reply, exchange_to_end(parent, look));
    siginfo_t info{};
    if (!reply.outs.empty() && reply.outs[0].size() == sizeof info)
      memcpy(&info, reply.outs[0].data(), sizeof info);
    if (reply.result == -ECHILD || info.si_pid == child_tid) return fail(ECHILD, "the child has ended");
  }
}

void Supervisor::clone_call(GuestThread& thread, PendingCall& call, Split kind) {
  Guest& guest = *thread.guest;
  NotifiedMemory memory(thread.outer_tid);
  Result<CloneOrder> read = read_order(call, kind, memory);
  if (!read) return call.answer(-read.error().code);
  CloneOrder order = *read;
  if (std::string reason = check(order); !reason.empty())
    return bring_home(thread, call, reason, Afterwards::kMayReturn);
  bool is_thread = (order.flags & CLONE_THREAD) != 0;
  // A fork is never undone, and none is refused that home would make: where there is no room, the parent goes home
  // first.
  Status room = is_thread ? Status() : let_in();
  if (!room) return bring_home(thread, call, options_.node_name + " is " + room.error().what);
  struct Coming {
    Supervisor& supervisor;
    bool counted;
    ~Coming() {
      if (counted) supervisor.not_coming();
    }
  } coming{*this, !is_thread};

  // The child is not seen to map them until it is known.
  std::vector<BoundPin> pins = is_thread ? std::vector<BoundPin>() : bound_.pin_all();
  std::unique_lock tracing = lock_tracer(thread);
  if (!tracing) return answer_when_interrupted(thread, call, kErestartnointr);
  CloneBody body{};
  {
    std::lock_guard lock(guest.mutex);
    for (body.slot = 0; guest.slots.contains(body.slot); ++body.slot) {
    }
    if (body.slot >= kSlotCount) return call.answer(-EAGAIN);
    guest.slots.insert(body.slot);
  }
  auto release_slot = [&] {
    std::lock_guard lock(guest.mutex);
    guest.slots.erase(body.slot);
  };
  body.child_epoch = guest.epoch;
  fill_random(body.token, sizeof body.token);
  expect_hello(body.token);
  uint64_t shared = order.flags & kSharedAtHome;
  body.flags =
      is_thread ? (shared | CLONE_VM)
                : (shared & ~static_cast<uint64_t>(CLONE_SIGHAND)) | static_cast<uint64_t>(order.exit_signal);
  Result<CallReply> reply = exchange_raw(thread, FrameType::kClone, &body, sizeof body, plain_plan(0, {}));
  guest.forwarded_calls.fetch_add(1, std::memory_order_relaxed);
  if (!reply || reply->verdict == Verdict::kRestart || reply->result < 0) {
    forget_hello(body.token);
    release_slot();
    tracing.unlock();
    if (reply && reply->verdict == Verdict::kRestart)
      return answer_and_deliver(thread, call, Answer::value(kErestartnointr));
    if (reply) return answer_and_deliver(thread, call, Answer::value(reply->result));
    if (reply.error().code == kFrozen) return answer_when_interrupted(thread, call, kErestartnointr);
    return lose_channel(thread, call, reply.error());
  }
  auto child_tid = static_cast<int>(reply->result);
  Result<UniqueFd> channel = wait_for_child(thread, body.token, child_tid, is_thread);
  forget_hello(body.token);
  if (!channel) {
    release_slot();
    tracing.unlock();
    if (channel.error().code != ECHILD) return lose_channel(thread, call, channel.error());
    log_debug("guest " + std::to_string(guest.pid) + ": child " + std::to_string(child_tid) +
              " has ended before it began");
    return answer_and_deliver(thread, call, Answer::value(child_tid));
  }

  // Now the away half. The thread is led through a plain clone whose flags are in registers, so that nobody can
  // change them; it gets its number by the namespace's last pid.
  Result<Tracee> tracee =
      seize_caller(thread, call, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK);
  if (!tracee) return call.abandon();
  tracee->interrupt();
  call.answer(kErestartnointr);
  Result<StopInfo> stop = tracee->wait_stop(kStageTimeoutMs);
  while (stop && stop->kind == StopKind::kSignal) {
    tracee->resume(stop->signal);
    stop = tracee->wait_stop(kStageTimeoutMs);
  }
  if (!stop || stop->kind != StopKind::kInterrupt) return;
  Result<user_regs_struct> original = tracee->registers();
  if (!original) return;
  if ((order.flags & CLONE_VM) != 0) {
    if (Status forgotten = forget_sole_thread(guest); !forgotten) {
      log_error("guest " + std::to_string(guest.pid) + ": " + forgotten.error().message());
      return;
    }
  }
  user_regs_struct led = *original;
  led.rax = SYS_clone;
  led.orig_rax = ~0ull;
  led.rip -= 2;
  uint64_t local_flags = order.flags & ~static_cast<uint64_t>(CLONE_PIDFD | CLONE_PTRACE | CLONE_DETACHED);
  led.rdi = is_thread ? local_flags : local_flags | CLONE_PARENT | SIGCHLD;
  led.rsi = order.stack;
  led.rdx = order.parent_tid;
  led.r10 = order.child_tid;
  led.r8 = order.tls;
  tracee->set_registers(led);
  Result<uint64_t> mask = tracee->signal_mask();
  int outer_child = 0;
  {
    std::unique_lock one_at_a_time = sandbox_->clone_lock();
    Status numbered = sandbox_->set_next_tid(child_tid);
    if (!numbered) log_error(numbered.error().message());
    thread.led = true;
    tracee->resume();
    stop = tracee->wait_stop(kStageTimeoutMs);
    if (stop && stop->kind == StopKind::kFork) outer_child = static_cast<int>(stop->message);
  }
  if (outer_child == 0) {
    thread.led = false;
    log_error("guest " + std::to_string(guest.pid) + ": clone failed here");
    tracee->set_registers(*original);
    return;
  }
  Tracee child = Tracee::adopt(outer_child);
  Result<StopInfo> born = child.wait_stop(kStageTimeoutMs);
  // Registers as they were, but for what the call itself changes. rax is the kernel's to set.
  user_regs_struct after = *original;
  if (Result<user_regs_struct> now = tracee->registers()) {
    after.rax = now->rax;
    after.orig_rax = now->orig_rax;
    after.rip = now->rip;
    after.rcx = now->rcx;
    after.r11 = now->r11;
    tracee->set_registers(after);
  }
  if (Result<user_regs_struct> now = child.registers()) {
    user_regs_struct fresh = *now;
    fresh.rdi = original->rdi;
    fresh.rsi = original->rsi;
    fresh.rdx = original->rdx;
    fresh.r10 = original->r10;
    fresh.r8 = original->r8;
    fresh.orig_rax = ~0ull;
    fresh.rax = 0;
    child.set_registers(fresh);
  }
  thread.led = false;
  auto status = read_status_fields(outer_child);
  if (!born || !status || status->ns_pid.empty() || status->ns_pid.back() != child_tid)
    log_error("guest " + std::to_string(guest.pid) + ": child " + std::to_string(child_tid) +
              " got another number here");

  // Known to the registry before it runs; its pid is announced to home before its first call.
  auto record = std::make_shared<GuestThread>();
  record->tid = child_tid;
  record->outer_tid = outer_child;
  record->slot = body.slot;
  record->channel = std::move(*channel);
  if (is_thread) {
    record->guest = thread.guest;
    std::lock_guard lock(guest.mutex);
    guest.threads[child_tid] = record;
  } else {
    release_slot();
    {
      std::lock_guard lock(guest.mutex);
      guest.ended_children.erase(
          child_tid);  // of an earlier child of that number, which somebody else has reaped
    }
    auto process = std::make_shared<Guest>();
    process->pid = child_tid;
    process->outer_pid = outer_child;
    process->pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, outer_child, 0)));
    process->parent_pid = guest.pid;
    process->shares_memory = (order.flags & CLONE_VM) != 0;
    process->window = guest.window;
    process->vdso = guest.vdso;
    process->ring_base = guest.ring_base;
    process->ring_bytes = guest.ring_bytes;
    process->epoch = guest.epoch;
    memcpy(process->token, body.token, sizeof process->token);
    process->program = guest.program;
    process->listener = guest.listener;
    process->traced = guest.traced.load();
    process->trace_stacks = guest.trace_stacks.load();
    process->slots.insert(body.slot);
    process->threads[child_tid] = record;
    record->guest = process;
    if (guest.has_bound_descriptor) {
      bound_.inherit(guest.pid, child_tid);
      process->has_bound_descriptor = true;
    }
    process->has_proc_descriptor = guest.has_proc_descriptor && proc_files_.inherit(guest.pid, child_tid);
    {
      std::unique_lock lock(registry_mutex_);
      guests_[child_tid] = process;
    }
    ChildBorn birth{.parent_pid = guest.pid, .pid = child_tid, .slot = body.slot};
    send_control(ControlType::kChildBorn, encode_message(birth));
    note_guest(*process, "guest");
    coming.counted = false;
  }
  add_thread(record);
  if (!is_thread && (order.flags & CLONE_VM) == 0 && guest.first_channel >= 0)
    drop_inherited_paths(*record, child);
  {
    std::lock_guard lock(record->mutex);
    rest(record);
  }
  if ((order.flags & CLONE_PIDFD) != 0) {
    Result<CallReply> opened =
        exchange_to_end(thread, plain_plan(SYS_pidfd_open, {static_cast<uint64_t>(child_tid)}));
    if (opened && opened->result >= 0) {
      auto fd = static_cast<int>(opened->result);
      memory.write(order.pidfd, &fd, sizeof fd);
      exchange_to_end(
          thread, plain_plan(SYS_fcntl, {static_cast<uint64_t>(fd), 2 /* F_SETFD */, 1 /* FD_CLOEXEC */}));
    }
  }
  call.note_result(child_tid);
  // The child inherits what was pending on nobody: it starts clean. A vfork parent waits by itself.
  child.detach();
  tracee->detach();
}

void Supervisor::exec_call(GuestThread& thread, PendingCall& call, const SyscallRow& row, bool at) {
  Guest& guest = *thread.guest;
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, "exec with very many arguments");
  ExecAsk ask;
  ask.pid = guest.pid;
  ask.tid = thread.tid;
  uint64_t path_address = call.args()[at ? 1 : 0];
  char path[4096] = "";
  size_t n = memory.read_some(path_address, path, sizeof path - 1);
  path[n] = '\0';
  ask.path = path;
  if (at) {
    ask.directory = static_cast<int32_t>(call.args()[0]);
    ask.flags = static_cast<int32_t>(call.args()[4]);
  }
  ask.cpu = cpu_figures(guest);
  CpuTimes of_thread = cpu_times(guest, &thread);
  ask.thread_cpu_ns = of_thread.user_ns + of_thread.system_ns;
  {
    std::unique_lock lock(registry_mutex_);
    exec_answers_.erase(guest.pid);
  }
  bool begun = false;
  {
    // A freeze waits for the execs that it finds under way, and no other begins.
    std::lock_guard lock(guest.mutex);
    if (!guest.freezing) ++guest.busy, begun = true;
  }
  if (!begun) return answer_when_interrupted(thread, call, kErestartnointr);
  if (!send_control(ControlType::kExecAsk, encode_message(ask))) return call.abandon();
  std::optional<ExecAnswer> answer;
  {
    std::unique_lock lock(registry_mutex_);
    registry_changed_.wait_for(lock, std::chrono::milliseconds(kStageTimeoutMs),
                               [&] { return exec_answers_.contains(guest.pid) || guest.ended; });
    if (auto found = exec_answers_.find(guest.pid); found != exec_answers_.end()) {
      answer = found->second;
      exec_answers_.erase(found);
    }
  }
  auto not_busy = [&] {
    std::lock_guard lock(guest.mutex);
    --guest.busy;
    guest.changed.notify_all();
  };
  if (!answer || answer->allowed == 0) {
    not_busy();
    return bring_home(thread, call, answer ? "exec: " + answer->reason : "exec: no answer from home");
  }
  for (;;) {
    Result<CallReply> reply = exchange(thread, *plan);
    if (!reply && reply.error().code != kFrozen) {
      // The deputy is gone from its channel: the new program has taken its place. The custodian says so on
      // the control connection, and this remote ends; until then a freeze waits.
      return lose_channel(thread, call, reply.error());
    }
    ThreadRef failed{.pid = guest.pid, .tid = thread.tid};
    send_control(ControlType::kExecFailed, encode_message(failed));
    not_busy();
    if (finish_call(thread, call, *plan, reply)) return;
    return answer_and_deliver(thread, call, Answer::value(kErestartnointr));
  }
}

void Supervisor::exit_thread(GuestThread& thread, PendingCall& call) {
  Guest& guest = *thread.guest;
  bool last;
  {
    // Of two that leave at once the second is the last: nobody would end the process for them.
    std::lock_guard lock(guest.mutex);
    last = true;
    for (auto& [tid, other] : guest.threads)
      if (other.get() != &thread && !other->leaving) last = false;
    thread.leaving = !last;
  }
  if (last) return exit_group(thread, call);
  std::shared_ptr<GuestThread> self = find_thread(thread.outer_tid);
  ExitBody order{.status = static_cast<int32_t>(call.args()[0]), .whole_group = 0};
  {
    std::unique_lock tracing = lock_tracer(thread);
    if (!tracing) {
      {
        std::lock_guard lock(guest.mutex);
        thread.leaving = false;
      }
      return answer_when_interrupted(thread, call, kErestartnointr);
    }
    // Gone here before it is gone at home: home may give the number to somebody else at once. The leader only
    // becomes a zombie, which keeps the number on both sides.
    if (thread.tid == guest.pid) {
      call.let_run_here();
    } else {
      Result<Tracee> tracee = Tracee::seize(thread.outer_tid);
      call.let_run_here();
      while (tracee) {
        Result<StopInfo> stop = tracee->wait_stop(kStageTimeoutMs);
        if (!stop || stop->gone()) break;
        tracee->resume(stop->kind == StopKind::kSignal ? stop->signal : 0);
      }
    }
  }
  drop_thread(self);
  if (DirectPath* direct = thread.direct)
    guest.forwarded_calls.fetch_add(direct->calls(), std::memory_order_relaxed);
  send_frame(thread.channel.get(), FrameType::kExit, guest, 0, 0, &order, sizeof order);
  // Its slot at home is free when it has shut its channel: what runs after that needs no stack.
  set_receive_timeout(thread.channel.get(), kStageTimeoutMs);
  while (receive_frame(thread.channel.get(), thread.inbox)) {
  }
  {
    std::lock_guard lock(guest.mutex);
    guest.threads.erase(thread.tid);
    guest.slots.erase(thread.slot);
  }
  std::lock_guard lock(thread.mutex);
  thread.ended = true;
  thread.changed.notify_all();
}

void Supervisor::exit_group(GuestThread& thread, PendingCall& call) {
  Guest& guest = *thread.guest;
  std::shared_ptr<Guest> owner = find_guest(guest.pid);
  if (owner == nullptr) return call.abandon();
  ExitBody order{.status = static_cast<int32_t>(call.args()[0]), .whole_group = 1};
  {
    std::unique_lock tracing = lock_tracer(thread);
    if (!tracing) return answer_when_interrupted(thread, call, kErestartnointr);
    call.abandon();
    kill_guest(guest);
  }
  // Told before home ends: whoever hears of the end finds the figures complete.
  keep_for_parent(guest);
  tell_figures(guest);
  release_unmapped();
  send_frame(thread.channel.get(), FrameType::kExit, guest, 0, 0, &order, sizeof order);
  drop_guest(owner);
}

}  // namespace mosix
