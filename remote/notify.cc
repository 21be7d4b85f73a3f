// Notification workers: the way of one trapped call. Each worker takes a notification, carries it through to
// its answer, blocking where home blocks, and takes the next. How many there are: crew.h.
//
// Blocking calls were measured faster here than a loop: guest, worker and deputy hand over to one another, and
// with SYNC_WAKE_UP on the same processor.
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/audit.h>

#include "libmosix/common/features.h"
#include "libmosix/common/log.h"
#include "libmosix/common/query.h"
#include "libmosix/syscalls/hidden_limit.h"
#include "libmosix/syscalls/partial_transfer.h"
#include "remote/guest_stack.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr uint64_t kX32Bit = 0x40000000;

uint64_t now_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

/// Once these are made at home, nothing of them is in the process but what a move takes along, or finds and is refused
/// for. Of others (a timer of CPU time, a segment table, a flag of the process) it would be lost.
bool leaves_nothing(int number) {
  switch (number) {
    case SYS_setuid:
    case SYS_setgid:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setresuid:
    case SYS_setresgid:
    case SYS_setgroups:
    case SYS_setfsuid:
    case SYS_setfsgid:
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_clock_nanosleep:
    case SYS_sethostname:
    case SYS_setdomainname:
    case SYS_mount:
    case SYS_umount2:
    case SYS_swapon:
    case SYS_swapoff:
      return true;
    default:
      return false;
  }
}

}  // namespace

void Supervisor::start_workers(int listener) {
  if (feature_enabled("sync_wake_up")) ioctl(listener, MOSIX_NOTIF_SET_FLAGS, kSyncWakeUp);
  start_worker(std::make_shared<Crew>(listener));
}

void Supervisor::start_worker(std::shared_ptr<Crew> crew) {
  std::thread([this, crew] { work(crew); }).detach();
}

void Supervisor::work(std::shared_ptr<Crew> crew) {
  bool returned;
  do {
    seccomp_notif notification{};
    while (ioctl(crew->listener(), SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) {
      if (errno == EINTR) continue;
      // ENOENT: the thread was killed before we could look, or nobody uses the filter any more.
      pollfd state{crew->listener(), POLLIN, 0};
      if (errno != ENOENT || poll(&state, 1, 0) < 0 || (state.revents & POLLHUP) != 0) return;
    }
    returned = take(crew, notification);
  } while (crew->done(returned) == Crew::Next::kWait);
}

/// True if the crew has been told that the worker is on its way back.
bool Supervisor::take(const std::shared_ptr<Crew>& crew, const seccomp_notif& notification) {
  PendingCall call(crew->listener(), notification);
  const SyscallRow& row = syscall_row(call.number(), call.args());
  bool may_block = row.where != Where::kHome || (row.effects & (kMayBlock | kTimed)) != 0;
  if (crew->took(call.outer_tid(), may_block)) start_worker(crew);
  call.on_return([&] { crew->returns(); });
  call.on_wait([&] {
    if (crew->takes_longer()) start_worker(crew);
  });
  serve_call(call);
  return call.returned();
}

void Supervisor::serve_call(PendingCall& call) {
  if (call.number() == kQueryAway) return call.answer(1);
  std::shared_ptr<GuestThread> thread = find_thread(call.outer_tid());
  if (thread == nullptr) {
    if (call.valid()) log_error("call of a thread that is not known: " + std::to_string(call.outer_tid()));
    return call.answer(-ENOSYS);
  }
  if (thread->led) return call.let_run_here();  // a tracer of ours has the thread make it
  bool begun = false;
  DirectPath* direct = thread->direct;
  // Its call has been made directly, and is at home: that is brought to its end even if a move has begun meanwhile.
  bool handed_over = direct != nullptr && direct->handed_over();
  {
    std::unique_lock lock(thread->mutex);
    // The worker of the call before may have answered it and not yet let go of the channel.
    thread->changed.wait(lock, [&] {
      return (!thread->watcher_busy && !thread->in_call) || thread->interrupted || thread->ended;
    });
    if (thread->ended) return call.abandon();
    const BegunCall& before = thread->begun;
    bool again = before.code != 0 && before.number == call.number() && before.args == call.args() &&
                 before.instruction_end == call.instruction_end();
    if (again) call.set_code_to_begin(before.code);
    if (thread->interrupted) {
      int64_t code = call.code_to_begin();
      if (thread->guest->freezing) code = code_to_wait(call.number(), call.args(), thread->outer_tid, code);
      return call.answer(code);
    }
    if (!thread->guest->freezing || handed_over) {
      begun = thread->in_call = true;
      thread->begun = {};
      unwatch(*thread);
      if (direct != nullptr) direct->begin_trapped_call();
    }
  }
  if (!begun) return answer_when_interrupted(*thread, call, call.code_to_begin());

  bool foreign = call.architecture() != AUDIT_ARCH_X86_64 || (call.number() & kX32Bit) != 0;
  bool signal_first;
  {
    std::lock_guard lock(thread->mutex);
    signal_first = thread->has_signal();
  }
  if (handed_over && adopt_direct_call(*thread, call)) {
    // Answered.
  } else if (foreign) {
    bring_home(*thread, call, "a 32-bit system call");
  } else if (signal_first) {
    answer_and_deliver(*thread, call, Answer::value(call.code_to_begin()));
  } else if (call.number() == kQueryDirect) {
    enable_direct(*thread, call);
  } else {
    dispatch(*thread, call, syscall_row(call.number(), call.args()));
  }

  // The thread may be in its next call by now, whose worker has the channel.
  if (call.channel_given_up()) return;
  if (!thread->ended) release_home_memory(*thread);
  Status drained = drain_inbox(*thread);
  std::lock_guard lock(thread->mutex);
  thread->in_call = false;
  thread->answered_restart = call.result() <= kErestartsys && call.result() >= kErestartRestartblock;
  if (!thread->ended && drained) rest(thread);
  thread->changed.notify_all();
}

/// After its first forwarded call a guest can no longer go back to what home kept of it: the call has happened.
void Supervisor::release_home_memory(GuestThread& thread) {
  Guest& guest = *thread.guest;
  std::vector<ReleaseRange> ranges;
  {
    std::lock_guard lock(guest.mutex);
    if (guest.at_home.empty() || guest.forwarded_calls == 0 || guest.freezing || guest.ended) return;
    ranges.swap(guest.at_home);
  }
  Result<CallReply> released = exchange_raw(thread, FrameType::kRelease, ranges.data(),
                                            ranges.size() * sizeof(ReleaseRange), plain_plan(0, {}));
  if (!released)
    log_debug("home's memory of guest " + std::to_string(guest.pid) + ": " + released.error().message());
}

void Supervisor::dispatch(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  bool traced = guest.traced;
  std::unique_ptr<CallText> text;
  NotifiedMemory memory(thread.outer_tid);
  std::vector<std::string> stack;
  uint64_t started = 0;
  int64_t wall = 0;
  if (traced) {
    wall = static_cast<int64_t>(now_ns(CLOCK_REALTIME));
    started = now_ns(CLOCK_MONOTONIC);
    thread.home_ns = 0;
    text = std::make_unique<CallText>(row, call.args(), memory);
    if (guest.trace_stacks) stack = guest_stack(thread.outer_tid);
  }
  AnsweredBy by = AnsweredBy::kHome;
  if (guest.has_bound_descriptor && meets_bound_file(thread, call, row)) {
    if (traced)
      trace_call(thread, row, *text, call, AnsweredBy::kBroughtHome, wall, now_ns(CLOCK_MONOTONIC) - started,
                 std::move(stack));
    return;
  }
  if (guest.has_proc_descriptor && meets_proc_file(thread, call, row)) {
    if (traced)
      trace_call(thread, row, *text, call, AnsweredBy::kSplit, wall, now_ns(CLOCK_MONOTONIC) - started,
                 std::move(stack));
    return;
  }
  switch (row.where) {
    case Where::kHere:
      by = AnsweredBy::kHere;
      guest.local_answers.fetch_add(1, std::memory_order_relaxed);
      judge_memory_call(thread, call, row);
      break;
    case Where::kHome:
      is_sleep(row.number, call.args()) ? sleep_at_home(thread, call, row) : forward_call(thread, call, row);
      break;
    case Where::kSplit:
      by = AnsweredBy::kSplit;
      split_call(thread, call, row);
      break;
    case Where::kBringHome:
      if (keeps_identity(thread, call, row)) {
        CallPlan plan = plain_plan(static_cast<uint32_t>(row.number), call.args());
        while (!finish_call(thread, call, plan, exchange(thread, plan))) {
        }
        break;
      }
      if (answer_unplanned(thread, call, row)) break;
      by = AnsweredBy::kBroughtHome;
      bring_home(thread, call, std::string(row.name),
                 leaves_nothing(row.number) ? Afterwards::kMayReturn : Afterwards::kStay);
      break;
    case Where::kRefuse:
      call.answer(-row.refusal);
      break;
  }
  if (traced)
    trace_call(thread, row, *text, call, by, wall, now_ns(CLOCK_MONOTONIC) - started, std::move(stack));
}

void Supervisor::forward_call(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  if (uint64_t total = bytes_to_give(call.number(), call.args(), memory); total != 0)
    return give_bytes(thread, call, row, total);
  if (has_time_limit(call.number())) return forward_timed(thread, call, row);
  if (notify_by_thread(thread, call)) return;
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan)
    return bring_home(thread, call, std::string(row.name) + " carries too much", Afterwards::kMayReturn);
  // What was read must have been the guest's: a pid may have been reused since. Numbers come with the call itself.
  if (plan->body.in_bytes > 0 && !call.valid()) return call.abandon();
  if (may_signal_own_threads(call.number(), call.args(), thread.guest->pid)) {
    for (;;) {
      Result<CallReply> reply = exchange(thread, *plan);
      if (reply && reply->verdict == Verdict::kDone && reply->result == 0) hear_siblings(thread);
      if (finish_call(thread, call, *plan, reply)) return;
    }
  }
  if (may_have_hidden_limit(call.number())) return forward_read(thread, call, *plan);
  call.note_last_exchange();
  while (!finish_call(thread, call, *plan, exchange(thread, *plan))) {
  }
}

/// Gives the channel back before the call is answered, where nothing is left to be done afterwards: the thread's next
/// call, which may come before this worker has made another step, meets nobody.
bool Supervisor::leave_early(GuestThread& thread, PendingCall& call) {
  Guest& guest = *thread.guest;
  if (!call.is_last_exchange() || guest.traced || !thread.inbox.empty()) return false;
  std::shared_ptr<GuestThread> shared;
  {
    std::lock_guard lock(guest.mutex);
    auto found = guest.threads.find(thread.tid);
    if (!guest.at_home.empty() || found == guest.threads.end()) return false;
    shared = found->second;
  }
  std::lock_guard lock(thread.mutex);
  if (thread.has_signal() || !thread.waiting.empty() || guest.freezing || thread.ended) return false;
  thread.in_call = false;
  thread.answered_restart = false;
  rest(shared);
  thread.changed.notify_all();
  call.note_channel_given_up();
  call.note_return();
  return true;
}

bool Supervisor::finish_call(GuestThread& thread, PendingCall& call, const CallPlan& plan,
                             const Result<CallReply>& reply, const Answer* instead) {
  if (!reply) {
    call.note_wait();
    if (reply.error().code == kFrozen)
      answer_when_interrupted(thread, call, call.code_to_begin());
    else
      lose_channel(thread, call, reply.error());
    return true;
  }
  if (reply->verdict == Verdict::kRestart) {
    call.note_wait();
    int64_t code = reply->result == kErestartnointr ? call.code_to_begin() : reply->result;
    bool signal;
    {
      std::lock_guard lock(thread.mutex);
      signal = thread.has_signal();
    }
    if (signal && !thread.guest->freezing) {
      answer_and_deliver(thread, call, Answer::value(code));
      return true;
    }
    if (thread.guest->freezing) {
      answer_when_interrupted(thread, call, code);
      return true;
    }
    return false;  // aborted for a move that did not take place
  }
  int64_t result = reply->result;
  if (reply->opened_in_proc)
    if (std::shared_ptr<Guest> guest = find_guest(thread.guest->pid))
      note_proc_file(guest, static_cast<uint64_t>(result));
  NotifiedMemory memory(thread.outer_tid);
  if (!deliver_outs(plan, *reply, memory)) result = -EFAULT;
  if (instead == nullptr && leave_early(thread, call)) {
    call.answer(result);
    return true;
  }
  call.note_wait();
  answer_and_deliver(thread, call, instead != nullptr && result >= 0 ? *instead : Answer::value(result));
  if (call.ran_here()) call.note_result(result);  // both kernels are asked the same
  return true;
}

void Supervisor::answer_when_interrupted(GuestThread& thread, PendingCall& call, int64_t restart_code) {
  if (thread.guest->freezing)
    restart_code = code_to_wait(call.number(), call.args(), thread.outer_tid, restart_code);
  std::unique_lock lock(thread.mutex);
  thread.begun = begun_call(call.number(), call.args(), call.instruction_end(), restart_code);
  std::unique_lock tracing(thread.tracer_mutex, std::defer_lock);
  // The freezer is about to interrupt the thread; only then may it see a restart code. If the move is called
  // off before that, the call is as good as new: it is answered through its own restart. Whoever has the right to
  // trace meanwhile may be waiting for this very answer, so it is tried for, not waited for.
  for (;;) {
    thread.changed.wait(lock, [&] { return thread.interrupted || thread.ended || !thread.guest->freezing; });
    if (thread.ended) return call.abandon();
    if (thread.interrupted) return call.answer(restart_code);
    if (tracing.try_lock()) break;
    thread.changed.wait_for(lock, std::chrono::milliseconds(1));
  }
  lock.unlock();
  auto tracee = seize_caller(thread, call);
  if (tracee) tracee->interrupt();
  call.answer(restart_code);
  if (tracee) tracee->wait_stop(kStageTimeoutMs);
}

/// However long it takes: while a debugger has hold of the process at home, for instance, nobody can bring it. Natively
/// the call would have been made.
void Supervisor::bring_home(GuestThread& thread, PendingCall& call, const std::string& reason,
                            Afterwards afterwards) {
  constexpr int kLongestPauseS = 5, kSayAfter = 5;
  Guest& guest = *thread.guest;
  for (int asked = 1;; ++asked) {
    WantHome want{.pid = guest.pid, .reason = reason, .for_a_call = static_cast<uint8_t>(afterwards)};
    if (!send_control(ControlType::kWantHome, encode_message(want))) return call.abandon();
    if (asked == kSayAfter)
      log_info("guest " + std::to_string(guest.pid) + " waits to be brought home for " + reason);
    if (!call.channel_given_up()) {
      // Its signals find it while it waits; the call is then made again.
      [[maybe_unused]] Status drained = drain_inbox(thread);
      call.note_channel_given_up();
      std::shared_ptr<GuestThread> shared = guest.thread(thread.tid);
      std::lock_guard lock(thread.mutex);
      thread.in_call = false;
      if (shared != nullptr && drained) rest(shared);
      thread.changed.notify_all();
    }
    std::unique_lock lock(thread.mutex);
    auto pause = std::chrono::seconds(std::min(asked, kLongestPauseS));
    if (!thread.changed.wait_for(lock, pause, [&] { return thread.interrupted || thread.ended; })) continue;
    if (thread.ended) return call.abandon();
    return call.answer(call.code_to_begin());
  }
}

void Supervisor::lose_channel(GuestThread& thread, PendingCall& call, const Error& error) {
  Guest& guest = *thread.guest;
  call.abandon();
  if (guest.ended) return;
  // Home has ended the process (or exec'd), or the connection broke. The custodian knows which; until it
  // speaks, the guest stands still in its call.
  log_debug("channel of guest thread " + std::to_string(thread.tid) + ": " + error.message());
  std::unique_lock lock(thread.mutex);
  thread.changed.wait_for(lock, std::chrono::seconds(5), [&] { return thread.ended.load(); });
  lock.unlock();
  if (!guest.ended) {
    log_info("guest " + std::to_string(guest.pid) + " has lost its deputy (" + error.message() + "); ended");
    if (auto owner = find_guest(guest.pid)) drop_guest(owner);
  }
}

void Supervisor::trace_call(GuestThread& thread, const SyscallRow& row, const CallText& text,
                            const PendingCall& call, AnsweredBy answered_by, int64_t started_ns,
                            uint64_t total_ns, std::vector<std::string> stack) {
  NotifiedMemory memory(thread.outer_tid);
  TraceEvent event;
  event.pid = thread.guest->pid;
  event.tid = thread.tid;
  event.number = static_cast<uint32_t>(row.number);
  std::copy(call.args().begin(), call.args().end(), event.args);
  event.result = call.result();
  event.answered_by = answered_by;
  event.started_ns = started_ns;
  event.round_trip_ns = total_ns;
  event.home_ns = thread.home_ns;
  // What the guest's own kernel answers is not seen here; what it fills is shown as an address then.
  event.text = call.ran_here() ? text.before() + ")"
                               : std::string(row.name) + "(" + text.arguments(call.result(), memory) + ")";
  event.result_text = call.result_known() ? format_result(row, call.result()) : "?";
  event.stack = std::move(stack);
  send_control(ControlType::kTrace, encode_message(event));
}

}  // namespace mosix
