// Notification workers: the way of one trapped call. Each worker takes a notification, carries it through to
// its answer, blocking where home blocks, and takes the next. One more worker than calls in flight: whoever
// takes a notification makes sure that another one waits.
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
#include "libmosix/syscalls/partial_transfer.h"
#include "remote/guest_stack.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

/// Asked by libmosix.so at its start: natively ENOSYS; 1 means "you are away, and ours already".
constexpr uint64_t kMosixQuery = 0x0d4f5358;
constexpr uint64_t kX32Bit = 0x40000000;

uint64_t now_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace

/// The listener of one filter, with the workers that serve it. Closed when the last of them leaves: then no
/// guest uses the filter any more.
struct Supervisor::Listener {
  explicit Listener(int listener) : fd(listener) {}
  UniqueFd fd;
  std::mutex mutex;
  int idle = 1;  ///< workers that wait for a notification, or have just been started to
};

void Supervisor::start_workers(int listener) {
  if (feature_enabled("sync_wake_up")) ioctl(listener, MOSIX_NOTIF_SET_FLAGS, kSyncWakeUp);
  auto shared = std::make_shared<Listener>(listener);
  std::thread([this, shared] { work(shared); }).detach();
}

void Supervisor::work(std::shared_ptr<Listener> listener) {
  for (;;) {
    seccomp_notif notification{};
    if (ioctl(listener->fd.get(), SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0) {
      if (errno == EINTR) continue;
      // ENOENT: the thread was killed before we could look, or nobody uses the filter any more.
      pollfd state{listener->fd.get(), POLLIN, 0};
      if (errno == ENOENT && poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0) continue;
      return;
    }
    bool start_another;
    {
      std::lock_guard lock(listener->mutex);
      start_another = --listener->idle == 0;
      if (start_another) ++listener->idle;
    }
    if (start_another) std::thread([this, listener] { work(listener); }).detach();
    {
      PendingCall call(listener->fd.get(), notification);
      serve_call(call);
    }
    std::lock_guard lock(listener->mutex);
    // Two may wait; more are left over from a burst.
    if (listener->idle >= 2) return;
    ++listener->idle;
  }
}

void Supervisor::serve_call(PendingCall& call) {
  if (call.number() == kMosixQuery) return call.answer(1);
  std::shared_ptr<GuestThread> thread = find_thread(call.outer_tid());
  if (thread == nullptr) {
    if (call.valid()) log_error("call of a thread that is not known: " + std::to_string(call.outer_tid()));
    return call.answer(-ENOSYS);
  }
  if (thread->led) return call.let_run_here();  // a tracer of ours has the thread make it
  bool begun = false;
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
    if (!thread->guest->freezing) {
      begun = thread->in_call = true;
      thread->begun = {};
      unwatch(*thread);
    }
  }
  if (!begun) return answer_when_interrupted(*thread, call, call.code_to_begin());

  bool foreign = call.architecture() != AUDIT_ARCH_X86_64 || (call.number() & kX32Bit) != 0;
  bool signal_first;
  {
    std::lock_guard lock(thread->mutex);
    signal_first = thread->has_signal();
  }
  if (foreign)
    bring_home(*thread, call, "a 32-bit system call");
  else if (signal_first)
    answer_and_deliver(*thread, call, Answer::value(call.code_to_begin()));
  else
    dispatch(*thread, call, syscall_row(call.number(), call.args()));

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
  if (!released) log_debug("home's memory of guest " + std::to_string(guest.pid) + ": " + released.error().message());
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
      by = AnsweredBy::kBroughtHome;
      bring_home(thread, call, std::string(row.name));
      break;
    case Where::kRefuse: call.answer(-row.refusal); break;
  }
  if (traced) trace_call(thread, row, *text, call, by, wall, now_ns(CLOCK_MONOTONIC) - started, std::move(stack));
}

void Supervisor::forward_call(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  NotifiedMemory memory(thread.outer_tid);
  if (uint64_t total = bytes_to_give(call.number(), call.args(), memory); total != 0)
    return give_bytes(thread, call, row, total);
  if (has_time_limit(call.number())) return forward_timed(thread, call, row);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return bring_home(thread, call, std::string(row.name) + " carries too much");
  // What was read must have been the guest's: a pid may have been reused since. Numbers come with the call itself.
  if (plan->body.in_bytes > 0 && !call.valid()) return call.abandon();
  while (!finish_call(thread, call, *plan, exchange(thread, *plan))) {
  }
}

bool Supervisor::finish_call(GuestThread& thread, PendingCall& call, const CallPlan& plan,
                             const Result<CallReply>& reply, const Answer* instead) {
  if (!reply) {
    if (reply.error().code == kFrozen)
      answer_when_interrupted(thread, call, call.code_to_begin());
    else
      lose_channel(thread, call, reply.error());
    return true;
  }
  if (reply->verdict == Verdict::kRestart) {
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
  NotifiedMemory memory(thread.outer_tid);
  if (!deliver_outs(plan, *reply, memory)) result = -EFAULT;
  answer_and_deliver(thread, call, instead != nullptr && result >= 0 ? *instead : Answer::value(result));
  if (call.ran_here()) call.note_result(result);  // both kernels are asked the same
  return true;
}

void Supervisor::answer_when_interrupted(GuestThread& thread, PendingCall& call, int64_t restart_code) {
  if (thread.guest->freezing) restart_code = code_to_wait(call.number(), call.args(), thread.outer_tid, restart_code);
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

void Supervisor::bring_home(GuestThread& thread, PendingCall& call, const std::string& reason) {
  Guest& guest = *thread.guest;
  constexpr int kAttempts = 3;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    WantHome want{.pid = guest.pid, .reason = reason};
    if (!send_control(ControlType::kWantHome, encode_message(want))) break;
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
    if (thread.changed.wait_for(lock, std::chrono::seconds(10),
                                [&] { return thread.interrupted || thread.ended; })) {
      if (thread.ended) return call.abandon();
      return call.answer(call.code_to_begin());
    }
  }
  log_error("guest " + std::to_string(guest.pid) + " cannot go home for " + reason + "; the call gets ENOSYS");
  call.answer(-ENOSYS);
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

void Supervisor::trace_call(GuestThread& thread, const SyscallRow& row, const CallText& text, const PendingCall& call,
                            AnsweredBy answered_by, int64_t started_ns, uint64_t total_ns,
                            std::vector<std::string> stack) {
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
