// The supervisor's part in calls whose time limit no argument names. Nothing is asked as long as such a call is made
// once. When a move breaks it off, the time when it began travels;
// when it is made again home is asked whether there is a limit, what is left of it is waited for by ppoll, and then the
// call is made or has run out of time.
#include <asm/termbits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>

#include "libmosix/syscalls/hidden_limit.h"
#include "libmosix/syscalls/partial_transfer.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr uint32_t kTcgets = 0x5401;

}  // namespace

/// A question to home on behalf of a call that has begun. False: a signal or a move came first, and the call has been
/// answered accordingly.
bool Supervisor::ask_for_call(GuestThread& thread, PendingCall& call, const CallPlan& plan,
                              int64_t restart_code, CallReply* reply) {
  for (;;) {
    Result<CallReply> got = exchange(thread, plan);
    if (got && got->verdict == Verdict::kDone) {
      *reply = std::move(*got);
      return true;
    }
    if (got) got->result = restart_code;
    if (finish_call(thread, call, plan, got)) return false;
  }
}

/// False as of ask_for_call.
bool Supervisor::ask_hidden_limit(GuestThread& thread, PendingCall& call, HiddenLimit* limit) {
  uint64_t fd = call.args()[0];
  timeval time{};
  const uint32_t bytes = sizeof time;
  CallPlan option = buffer_plan(SYS_getsockopt, {fd, SOL_SOCKET, SO_RCVTIMEO, 0, 0, 0}, 4, &bytes,
                                sizeof bytes, 3, sizeof time, OutRule::kFixed, 1);
  CallReply reply;
  if (!ask_for_call(thread, call, option, kErestartsys, &reply)) return false;
  if (take_out(reply, &time)) {
    *limit = socket_limit(time);
    return true;
  }
  if (call.number() != SYS_read && call.number() != SYS_readv) return true;
  struct termios settings {};
  CallPlan ask = buffer_plan(SYS_ioctl, {fd, kTcgets, 0, 0, 0, 0}, -1, nullptr, 0, 2, sizeof settings,
                             OutRule::kFixed, 1);
  if (!ask_for_call(thread, call, ask, kErestartsys, &reply)) return false;
  if (take_out(reply, &settings)) {
    *limit = terminal_limit((settings.c_lflag & ICANON) != 0, settings.c_cc[VMIN], settings.c_cc[VTIME]);
  }
  return true;
}

void Supervisor::forward_read(GuestThread& thread, PendingCall& call, const CallPlan& plan) {
  NotifiedMemory memory(thread.outer_tid);
  uint64_t total = bytes_to_receive(call.number(), call.args(), memory);
  int64_t begun_ns = home_clock_ns();
  bool again;
  {
    std::lock_guard lock(thread.mutex);
    again = thread.deadline_call == call.number() && thread.deadline_ns != 0;
    if (again) begun_ns = thread.deadline_ns;
  }
  if (again && !wait_for_rest(thread, call, begun_ns)) return end_deadline(thread, call);
  if (total != 0) return receive_all(thread, call, plan, total, begun_ns);
  if (!again) call.note_last_exchange();
  for (;;) {
    Result<CallReply> reply = exchange(thread, plan);
    if (reply && reply->verdict == Verdict::kRestart) note_beginning(thread, call, begun_ns);
    if (finish_call(thread, call, plan, reply)) return end_deadline(thread, call);
  }
}

/// For when a call that a move has met is made again. What limit there is, if any, is asked then: just now home may be
/// unable to answer.
void Supervisor::note_beginning(GuestThread& thread, const PendingCall& call, int64_t begun_ns) {
  if (!thread.guest->freezing) return;
  std::lock_guard lock(thread.mutex);
  thread.deadline_ns = begun_ns;
  thread.deadline_call = call.number();
}

/// False: the call has been answered, because its time is up, or a signal or a move came.
bool Supervisor::wait_for_rest(GuestThread& thread, PendingCall& call, int64_t begun_ns) {
  HiddenLimit limit;
  if (!ask_hidden_limit(thread, call, &limit)) return false;
  if (limit.ns == 0) return true;
  int64_t left = std::max<int64_t>(begun_ns + limit.ns - home_clock_ns(), 0);
  struct {
    pollfd entry;
    timespec left;
  } in{{static_cast<int>(call.args()[0]), POLLIN, 0}, {left / kNsPerSecond, left % kNsPerSecond}};
  CallPlan wait =
      buffer_plan(SYS_ppoll, {0, 1, sizeof in.entry, 0, 0, 0}, 0, &in, sizeof in, -1, 0, OutRule::kFixed, 0);
  wait.body.arg_relocs |= 1u << 2;
  CallReply reply;
  // As the call itself would be interrupted: one with SO_RCVTIMEO always fails with EINTR.
  if (!ask_for_call(thread, call, wait, limit.result == 0 ? kErestartsys : kErestartnohand, &reply))
    return false;
  if (reply.result != 0) return true;  // also what cannot be waited for: the call itself says why
  auto received = static_cast<int64_t>(take_moved_bytes(thread));
  answer_and_deliver(thread, call, Answer::value(received != 0 ? received : limit.result));
  return false;
}

}  // namespace mosix
