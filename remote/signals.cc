// Home's signals, put into guest threads. Home's kernel has chosen the thread, applied its mask, and decided what
// becomes of the call at hand; here the same signal has to appear in the guest thread at the same point, with
// the same siginfo, and this node's kernel then builds the handler's frame and restarts or ends the call itself.
//
// How: the thread is seized and interrupted, its call (if it is in one) is answered, and it stops on its way to
// user mode. Then the signal is sent to it with tgkill; it stops again, in signal delivery, where a tracer may
// replace the siginfo by home's and let it go on into the handler. A service thread queueing siginfo would not
// do: the kernel allows forged codes only to the thread itself.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libmosix/common/log.h"
#include "libmosix/process/syscall_site.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int kStopLimitMs = 5000;

int signal_number(const Siginfo& info) {
  int number;
  memcpy(&number, info.bytes, sizeof number);
  return number;
}

void send_signal(const GuestThread& thread, int signal) {
  syscall(SYS_tgkill, thread.guest->outer_pid, thread.outer_tid, signal);
}

/// Waits for the next stop of one of two kinds, letting the guest's own faults pass.
Result<StopInfo> wait_for(Tracee& tracee, int signal) {
  for (;;) {
    TRY(StopInfo stop, tracee.wait_stop(kStopLimitMs));
    if (stop.gone() || stop.kind == StopKind::kInterrupt) return stop;
    if (stop.kind == StopKind::kSignal && stop.signal == signal) return stop;
    TRY_VOID(tracee.resume(stop.kind == StopKind::kSignal ? stop.signal : 0));
  }
}

}  // namespace

bool may_signal_own_threads(uint64_t number, const std::array<uint64_t, 6>& args, int pid) {
  auto target = static_cast<int>(args[0]);
  switch (number) {
    case SYS_kill:
    case SYS_rt_sigqueueinfo:
      return target <= 0 || target == pid;
    case SYS_tgkill:
    case SYS_rt_tgsigqueueinfo:
      return target == pid;
    case SYS_tkill:
    case SYS_pidfd_send_signal:
      return true;
    default:
      return false;
  }
}

/// Threads of one process hear from each other faster than from home: a signal that one of them has sent must be there
/// before it goes on. Those in a call hear of it with the reply, before they make another step; the others are asked
/// for here, through their deputies, which have taken it by now.
void Supervisor::hear_siblings(GuestThread& caller) {
  Guest& guest = *caller.guest;
  auto lend_channel = [&](bool lend) {
    std::unique_lock lock(caller.mutex);
    caller.lends_channel = lend;
    caller.changed.notify_all();
    if (!lend) caller.changed.wait(lock, [&] { return !caller.watcher_busy; });
  };
  for (;;) {
    if (!guest.freezing) {
      lend_channel(true);  // a sibling may be doing the same
      hear_others(caller);
      lend_channel(false);
    }
    // If it is being moved, all of them hear of what waits for them where they go on.
    std::unique_lock lock(caller.mutex);
    if (!guest.freezing) return;
    caller.changed.wait(lock, [&] { return caller.interrupted || caller.ended || !guest.freezing; });
    if (caller.interrupted || caller.ended) return;
  }
}

void Supervisor::hear_others(GuestThread& caller) {
  Guest& guest = *caller.guest;
  std::vector<std::shared_ptr<GuestThread>> threads;
  {
    std::lock_guard lock(guest.mutex);
    for (auto& [tid, thread] : guest.threads)
      if (thread.get() != &caller) threads.push_back(thread);
  }
  for (auto& thread : threads) {
    bool in_call;
    {
      if (DirectPath* direct = thread->direct; direct != nullptr && direct->in_call())
        if (std::unique_lock tracing = lock_tracer(*thread)) (void)shut_direct(*thread);
      // A call that waits for its reply hears of the signal with it, or asks for it then. One that does not is about to
      // begin or about to end.
      std::unique_lock lock(thread->mutex);
      auto settled = [&] {
        bool free = (!thread->in_call || thread->lends_channel) && !thread->watcher_busy;
        return free || thread->exchanging || thread->ended || guest.freezing;
      };
      while (!settled()) thread->changed.wait_for(lock, std::chrono::milliseconds(1));
      in_call = thread->in_call;
      if (thread->exchanging) thread->hear_first = true;
      DirectPath* direct = thread->direct;
      bool hears = thread->exchanging || thread->ended || guest.freezing || !thread->channel ||
                   (!in_call && direct != nullptr && !direct->close_if_idle());
      if (hears) continue;
      if (!in_call) unwatch(*thread);
      thread->watcher_busy = true;
    }
    Result<CallReply> heard = exchange_raw(*thread, FrameType::kHear, nullptr, 0, plain_plan(0, {}));
    bool has_signal = false;
    if (heard && drain_inbox(*thread)) {
      std::lock_guard lock(thread->mutex);
      has_signal = thread->has_signal();
    }
    if (has_signal && !in_call) deliver_to_computing(*thread);
    std::lock_guard lock(thread->mutex);
    thread->watcher_busy = false;
    thread->changed.notify_all();
    if (!thread->ended && heard && !in_call) rest(thread);
  }
}

std::unique_lock<std::mutex> Supervisor::lock_tracer(GuestThread& thread) {
  // A mover keeps the lock until the guest is gone, and cannot freeze it before the caller has answered.
  std::unique_lock tracing(thread.tracer_mutex, std::try_to_lock);
  while (!tracing && !thread.guest->freezing) {
    std::unique_lock lock(thread.mutex);
    thread.changed.wait_for(lock, std::chrono::milliseconds(1));
    lock.unlock();
    [[maybe_unused]] bool got = tracing.try_lock();
  }
  if (tracing && thread.guest->freezing) tracing.unlock();
  return tracing;
}

/// A call that was broken off and was to go on: a handler comes first, so it ends with what it has given or received.
void Supervisor::end_giving(GuestThread& thread, Tracee& tracee) {
  uint64_t given = take_moved_bytes(thread);
  {
    std::lock_guard lock(thread.mutex);
    thread.deadline_ns = 0;  // a handler comes first: if the call is made once more, it is another one
    thread.begun = {};
  }
  if (given == 0) return;
  Result<user_regs_struct> registers = tracee.registers();
  if (!registers) return;
  registers->rax = given;
  registers->orig_rax = ~0ull;
  tracee.set_registers(*registers);
}

Result<Tracee> Supervisor::seize_caller(GuestThread& thread, const PendingCall& call, unsigned long options) {
  for (;;) {
    Result<Tracee> tracee = Tracee::seize(thread.outer_tid, options);
    // A thread of ours that could not detach from it, because it stood in its call, frees it by its own end.
    if (tracee || tracee.error().code == ESRCH || !call.valid()) return tracee;
    std::unique_lock lock(thread.mutex);
    thread.changed.wait_for(lock, std::chrono::milliseconds(1));
  }
}

void Supervisor::put_signals(GuestThread& thread, Tracee& tracee, Then then) {
  {
    std::lock_guard lock(thread.mutex);
    for (WaitingSignal& signal : thread.waiting) signal.parked = false;
  }
  for (;;) {
    Result<uint64_t> mask = tracee.signal_mask();
    if (!mask) return;
    WaitingSignal next;
    bool more = false;
    {
      std::lock_guard lock(thread.mutex);
      auto found = thread.waiting.end();
      for (auto at = thread.waiting.begin(); at != thread.waiting.end(); ++at) {
        bool blocked = (*mask >> (signal_number(at->info) - 1) & 1) != 0;
        if (blocked) {
          at->parked = true;
          continue;
        }
        // The last one first: numbers are in the order in which handlers run, and the one that is put in last runs first.
        more = found != thread.waiting.end();
        found = at;
      }
      if (found == thread.waiting.end()) break;
      next = *found;
      thread.waiting.erase(found);
    }
    lead_back_into_call(thread, tracee);
    age_rest(thread, tracee);
    end_giving(thread, tracee);
    int number = signal_number(next.info);
    send_signal(thread, number);
    tracee.resume();
    Result<StopInfo> stop = wait_for(tracee, number);
    if (!stop || stop->kind != StopKind::kSignal) {
      if (!stop) log_error("signal " + std::to_string(number) + ": " + stop.error().message());
      break;
    }
    siginfo_t info;
    static_assert(sizeof info == sizeof next.info);
    memcpy(&info, &next.info, sizeof info);
    tracee.set_siginfo(info);
    if (!more && then == Then::kDetach) {
      tracee.detach(number);
      return;
    }
    // The next one has to meet the mask that this handler runs under.
    tracee.interrupt();
    tracee.resume(number);
    stop = wait_for(tracee, 0);
    if (!stop || stop->gone()) return;
  }
  if (then == Then::kDetach && tracee.stopped()) tracee.detach();
}

void Supervisor::answer_and_deliver(GuestThread& thread, PendingCall& call, const Answer& answer) {
  // A restart code means something only to a thread that is interrupted, whether there is a signal for it or not
  // (home may have left the call for a move that was then called off).
  bool restarts = !answer.run_here && answer.result <= kErestartsys && answer.result >= kErestartRestartblock;
  {
    std::lock_guard lock(thread.mutex);
    bool unpark = answer.run_here && !thread.waiting.empty();  // the mask may change
    if (!thread.has_signal() && !unpark && !restarts) return answer.apply(call);
    if (restarts)
      thread.begun = begun_call(call.number(), call.args(), call.instruction_end(), answer.result);
  }
  std::unique_lock tracing = lock_tracer(thread);
  while (!tracing) {
    // Whoever moves the guest gives it the signals, when it stands and before its state is taken. It must not come out
    // of its call before it has been told to stand, or it would go on for a while without its handlers.
    {
      std::unique_lock lock(thread.mutex);
      thread.changed.wait(lock,
                          [&] { return thread.interrupted || thread.ended || !thread.guest->freezing; });
      if (thread.ended) return call.abandon();
      if (thread.interrupted) return answer.apply(call);
    }
    tracing = lock_tracer(thread);
  }
  Result<Tracee> tracee = seize_caller(thread, call);
  if (!tracee) return answer.apply(call);  // it is being killed
  tracee->interrupt();
  answer.apply(call);
  Result<StopInfo> stop = wait_for(*tracee, 0);
  if (!stop || stop->gone()) return;
  put_signals(thread, *tracee);
}

void Supervisor::deliver_in_sigsuspend(GuestThread& thread, PendingCall& call) {
  // The signal must be pending before the thread enters sigsuspend here, whose mask lets it through; an
  // interrupt would only make it restart.
  std::unique_lock tracing = lock_tracer(thread);
  if (!tracing) return answer_when_interrupted(thread, call, kErestartnohand);
  WaitingSignal first;
  {
    std::lock_guard lock(thread.mutex);
    if (thread.waiting.empty()) return call.answer(-EINTR);
    first = thread.waiting.back();  // it runs last, as in put_signals
    thread.waiting.pop_back();
  }
  int number = signal_number(first.info);
  Result<Tracee> tracee = seize_caller(thread, call);
  if (!tracee) return call.abandon();
  send_signal(thread, number);
  call.let_run_here();
  Result<StopInfo> stop = wait_for(*tracee, number);
  if (!stop || stop->kind != StopKind::kSignal) return;
  siginfo_t info;
  memcpy(&info, &first.info, sizeof info);
  tracee->set_siginfo(info);
  tracee->interrupt();
  tracee->resume(number);
  stop = wait_for(*tracee, 0);
  if (stop && !stop->gone()) put_signals(thread, *tracee);
}

void Supervisor::deliver_under_mask(GuestThread& thread, PendingCall& call, uint64_t mask_address) {
  // ppoll and its like ended with EINTR at home, by a signal that may be blocked outside the call. The thread
  // is led through a sigsuspend with the call's mask in its place: the kernel then saves the outer mask in the
  // handler's frame and returns -EINTR, as it would have from the call itself.
  std::unique_lock tracing = lock_tracer(thread);
  if (!tracing) return answer_when_interrupted(thread, call, kErestartnohand);
  Result<Tracee> tracee = seize_caller(thread, call);
  if (!tracee) return call.abandon();
  tracee->interrupt();
  call.answer(-EINTR);
  Result<StopInfo> stop = wait_for(*tracee, 0);
  if (!stop || stop->gone()) return;
  WaitingSignal first;
  {
    std::lock_guard lock(thread.mutex);
    if (thread.waiting.empty()) return;
    first = thread.waiting.back();  // it runs last, as in put_signals
    thread.waiting.pop_back();
  }
  Result<user_regs_struct> original = tracee->registers();
  if (!original) return;
  user_regs_struct led = *original;
  led.rax = SYS_rt_sigsuspend;
  led.orig_rax = ~0ull;
  led.rdi = mask_address;
  led.rsi = 8;
  led.rip -= 2;
  tracee->set_registers(led);
  int number = signal_number(first.info);
  // Unblocked outside the call too, the signal would be taken before the call is entered.
  Result<uint64_t> mask = tracee->signal_mask();
  bool blocked = mask && (*mask >> (number - 1) & 1) != 0;
  if (!blocked) tracee->set_registers(*original);
  thread.led = true;
  send_signal(thread, number);
  tracee->resume();
  stop = wait_for(*tracee, number);
  thread.led = false;
  if (!stop || stop->kind != StopKind::kSignal) return;
  if (blocked) {
    Result<user_regs_struct> now = tracee->registers();
    if (now) {
      now->rdi = original->rdi;
      now->rsi = original->rsi;
      tracee->set_registers(*now);
    }
  }
  siginfo_t info;
  memcpy(&info, &first.info, sizeof info);
  tracee->set_siginfo(info);
  tracee->interrupt();
  tracee->resume(number);
  stop = wait_for(*tracee, 0);
  if (stop && !stop->gone()) put_signals(thread, *tracee);
}

/// A thread that was stopped on its way into a notification that no worker had read: its call has not begun. A
/// handler must not make it fail with EINTR, as the kernel would that takes it for interrupted.
void Supervisor::mend_unread_call(GuestThread& thread, Tracee& tracee) {
  Result<user_regs_struct> registers = tracee.registers();
  if (!registers || static_cast<int64_t>(registers->orig_rax) < 0 ||
      static_cast<int64_t>(registers->rax) != kErestartsys)
    return;
  std::array<uint64_t, 6> args = arguments_in(*registers);
  if (syscall_row(registers->orig_rax, args).where == Where::kHere) return;
  int64_t code = code_to_begin(registers->orig_rax);
  {
    std::lock_guard lock(thread.mutex);
    const BegunCall& begun = thread.begun;
    bool again = begun.code != 0 && begun.number == registers->orig_rax && begun.args == args &&
                 begun.instruction_end == registers->rip;
    if (again) code = begun.code;
  }
  if (thread.guest->freezing) code = code_to_wait(registers->orig_rax, args, thread.outer_tid, code);
  registers->rax = static_cast<uint64_t>(code);
  tracee.set_registers(*registers);
}

BegunCall Supervisor::begun_call(uint64_t number, const std::array<uint64_t, 6>& args,
                                 uint64_t instruction_end, int64_t code) {
  if (code != kErestartsys && code != kErestartnohand && code != kErestartRestartblock) return {};
  return {code == kErestartRestartblock ? uint64_t{SYS_restart_syscall} : number, args, instruction_end,
          code};
}

void Supervisor::lead_back_into_call(GuestThread& thread, Tracee& tracee) {
  Result<user_regs_struct> registers = tracee.registers();
  if (!registers) return;
  {
    std::lock_guard lock(thread.mutex);
    const BegunCall& begun = thread.begun;
    bool before = begun.code != 0 && registers->rip + kSyscallInstructionBytes == begun.instruction_end &&
                  registers->rax == begun.number && arguments_in(*registers) == begun.args;
    if (!before) return;
    registers->rip = begun.instruction_end;
    registers->orig_rax = begun.number;
    registers->rax = static_cast<uint64_t>(begun.code);
  }
  tracee.set_registers(*registers);
}

void Supervisor::deliver_to_computing(GuestThread& thread) {
  std::unique_lock tracing(thread.tracer_mutex, std::try_to_lock);
  if (!tracing || thread.guest->freezing) return;  // whoever has the thread looks at its signals afterwards
  DirectPath* direct = thread.direct;
  if (direct != nullptr && !direct->close_if_idle()) return;
  Result<Tracee> tracee = Tracee::seize(thread.outer_tid);
  if (!tracee) return;
  tracee->interrupt();
  {
    // From here on a worker that finds the thread in a call answers it by a restart.
    std::lock_guard lock(thread.mutex);
    thread.interrupted = true;
    thread.changed.notify_all();
  }
  Result<StopInfo> stop = wait_for(*tracee, 0);
  {
    std::lock_guard lock(thread.mutex);
    thread.interrupted = false;
  }
  if (!stop || stop->gone()) return;
  // No handler on the agent's stack.
  if (Status out = leave_code(*tracee, agent_code(*thread.guest)); !out)
    return log_error(out.error().message());
  mend_unread_call(thread, *tracee);
  put_signals(thread, *tracee);
}

}  // namespace mosix
