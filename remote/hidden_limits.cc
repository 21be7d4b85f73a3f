// Calls whose time limit no argument names: reading from a socket with SO_RCVTIMEO, or from a terminal that waits for
// VTIME. Nothing is asked as long as such a call is made once. When a move breaks it off, home is asked whether there
// is a limit; made again, the call waits by ppoll for what is left of it, and then reads or has run out of time.
#include <asm/termbits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <algorithm>

#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000, kNsPerUs = 1000, kNsPerTenth = 100'000'000;
constexpr int64_t kLongestSeconds = 1'000'000'000;
constexpr uint32_t kTcgets = 0x5401;

template <class T>
bool take_out(const Result<CallReply>& reply, T* value) {
  if (!reply || reply->verdict != Verdict::kDone || reply->result != 0 || reply->outs.empty() ||
      reply->outs[0].size() != sizeof *value)
    return false;
  memcpy(value, reply->outs[0].data(), sizeof *value);
  return true;
}

}  // namespace

bool Supervisor::may_have_hidden_limit(uint64_t number) {
  return number == SYS_read || number == SYS_readv || number == SYS_recvfrom || number == SYS_recvmsg ||
         number == SYS_accept || number == SYS_accept4;
}

/// Also while the guest is being moved, which waits for it.
Supervisor::HiddenLimit Supervisor::hidden_limit(GuestThread& thread, const PendingCall& call) {
  uint64_t fd = call.args()[0];
  timeval time{};
  const uint32_t bytes = sizeof time;
  CallPlan option = buffer_plan(SYS_getsockopt, {fd, SOL_SOCKET, SO_RCVTIMEO, 0, 0, 0}, 4, &bytes, sizeof bytes, 3,
                                sizeof time, OutRule::kFixed, 1);
  Result<CallReply> reply = exchange_to_end(thread, option);
  if (take_out(reply, &time)) {
    bool limited = time.tv_sec >= 0 && time.tv_sec < kLongestSeconds && (time.tv_sec != 0 || time.tv_usec != 0);
    return {limited ? time.tv_sec * kNsPerSecond + time.tv_usec * kNsPerUs : 0, -EAGAIN};
  }
  if (call.number() != SYS_read && call.number() != SYS_readv) return {};
  struct termios settings {};
  CallPlan ask = buffer_plan(SYS_ioctl, {fd, kTcgets, 0, 0, 0, 0}, -1, nullptr, 0, 2, sizeof settings, OutRule::kFixed, 1);
  reply = exchange_to_end(thread, ask);
  if (!take_out(reply, &settings) || (settings.c_lflag & ICANON) != 0 || settings.c_cc[VMIN] != 0) return {};
  return {settings.c_cc[VTIME] * kNsPerTenth, 0};
}

void Supervisor::forward_read(GuestThread& thread, PendingCall& call, const CallPlan& plan) {
  int64_t begun_ns = home_clock_ns();
  int64_t deadline = 0;
  {
    std::lock_guard lock(thread.mutex);
    if (thread.deadline_call == call.number()) deadline = thread.deadline_ns;
  }
  if (deadline != 0) {
    if (!wait_for_rest(thread, call, deadline)) return;
    begun_ns = home_clock_ns();
  } else {
    call.note_last_exchange();
  }
  for (;;) {
    Result<CallReply> reply = exchange(thread, plan);
    if (deadline == 0 && reply && reply->verdict == Verdict::kRestart && thread.guest->freezing) {
      HiddenLimit limit = hidden_limit(thread, call);
      std::lock_guard lock(thread.mutex);
      thread.deadline_ns = limit.ns == 0 ? 0 : begun_ns + limit.ns;
      thread.deadline_call = call.number();
    }
    if (finish_call(thread, call, plan, reply)) return end_deadline(thread, call);
  }
}

/// False: the call has been answered, because its time is up, or a signal or a move came.
bool Supervisor::wait_for_rest(GuestThread& thread, PendingCall& call, int64_t deadline) {
  struct {
    pollfd entry;
    timespec left;
  } in{};
  in.entry = {static_cast<int>(call.args()[0]), POLLIN, 0};
  for (;;) {
    int64_t left = std::max<int64_t>(deadline - home_clock_ns(), 0);
    in.left = {left / kNsPerSecond, left % kNsPerSecond};
    CallPlan wait = buffer_plan(SYS_ppoll, {0, 1, sizeof in.entry, 0, 0, 0}, 0, &in, sizeof in, -1, 0, OutRule::kFixed, 0);
    wait.body.arg_relocs |= 1u << 2;
    Result<CallReply> reply = exchange(thread, wait);
    if (reply && reply->verdict == Verdict::kDone && reply->result != 0) {
      std::lock_guard lock(thread.mutex);
      thread.deadline_ns = 0;
      return true;  // also what cannot be waited for: the call itself says why
    }
    HiddenLimit limit = hidden_limit(thread, call);
    if (reply && reply->verdict == Verdict::kDone) reply->result = limit.result;
    // As the call itself would be interrupted: one with SO_RCVTIMEO always fails with EINTR.
    if (reply && reply->verdict == Verdict::kRestart) reply->result = limit.result == 0 ? kErestartsys : kErestartnohand;
    if (!finish_call(thread, call, wait, reply)) continue;
    end_deadline(thread, call);
    return false;
  }
}

}  // namespace mosix
