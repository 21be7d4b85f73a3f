// Calls that give bytes away: write, send and their like. One that is broken off by a move goes on behind what has
// been given already, wherever the guest is by then; the program gets the sum.
#include "libmosix/syscalls/partial_transfer.h"

#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "libmosix/common/log.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

Result<CallPlan> plan_rest(const PendingCall& call, uint64_t done, GuestMemory& memory) {
  TRY(RestOfCall rest, rest_of_call(call.number(), call.args(), done, kMaxScratchBytes, memory));
  return buffer_plan(rest.number, rest.args, 1, rest.data.data(), static_cast<uint32_t>(rest.data.size()), -1,
                     0, OutRule::kFixed, 0);
}

}  // namespace

uint64_t Supervisor::take_given_bytes(GuestThread& thread) {
  std::lock_guard lock(thread.mutex);
  return std::exchange(thread.given_bytes, 0);
}

void Supervisor::give_bytes(GuestThread& thread, PendingCall& call, const SyscallRow& row, uint64_t total) {
  NotifiedMemory memory(thread.outer_tid);
  for (;;) {
    uint64_t done;
    {
      std::lock_guard lock(thread.mutex);
      done = thread.given_bytes;
    }
    Result<CallPlan> plan = done == 0 ? plan_call(row, call.args(), memory) : plan_rest(call, done, memory);
    if (!plan && done != 0)
      return answer_and_deliver(thread, call, Answer::value(static_cast<int64_t>(take_given_bytes(thread))));
    if (!plan) return bring_home(thread, call, std::string(row.name) + " carries too much");
    if (!call.valid()) return call.abandon();
    uint64_t carried = std::min<uint64_t>(total - done, kMaxScratchBytes);
    plan->body.wanted_bytes = static_cast<uint32_t>(carried);
    Result<CallReply> reply = exchange(thread, *plan);
    if (!reply || (reply->verdict == Verdict::kRestart && reply->moved_bytes == 0 && done == 0)) {
      if (finish_call(thread, call, *plan, reply)) return;
      continue;
    }
    if (reply->verdict == Verdict::kRestart) {
      bool signal;
      {
        std::lock_guard lock(thread.mutex);
        thread.given_bytes = done + reply->moved_bytes;
        signal = thread.has_signal();
      }
      // A signal ends the call here, as it would have at home; a move takes along how far it has come.
      if (signal)
        return answer_and_deliver(thread, call,
                                  Answer::value(static_cast<int64_t>(take_given_bytes(thread))));
      if (thread.guest->freezing) return answer_when_interrupted(thread, call, kErestartsys);
      continue;
    }
    if (reply->result > 0 && done + static_cast<uint64_t>(reply->result) < total &&
        static_cast<uint64_t>(reply->result) == carried) {
      std::lock_guard lock(thread.mutex);
      thread.given_bytes = done + carried;
      continue;
    }
    take_given_bytes(thread);
    // What went wrong behind the first part, the program meets with its next call.
    if (done != 0) reply->result = static_cast<int64_t>(done) + std::max<int64_t>(reply->result, 0);
    finish_call(thread, call, *plan, reply);
    return;
  }
}

}  // namespace mosix
