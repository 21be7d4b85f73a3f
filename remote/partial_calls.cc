// Calls that give bytes away, write, send and their like, and receives that wait for all. One that is broken off by a
// move goes on behind what has been given or received already, wherever the guest is by then; the program gets the sum.
#include "libmosix/syscalls/partial_transfer.h"

#include <sys/socket.h>
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

CallPlan plan_rest_of_receive(const PendingCall& call, uint64_t done, GuestMemory& memory) {
  std::vector<iovec> pieces = rest_of_receive(call.number(), call.args(), done, kMaxScratchBytes, memory);
  uint32_t bytes = 0;
  std::vector<OutSegment> segments;
  for (const iovec& piece : pieces) {
    auto size = static_cast<uint32_t>(piece.iov_len);
    segments.push_back({bytes, size, reinterpret_cast<uint64_t>(piece.iov_base)});
    bytes += size;
  }
  uint64_t flags = receive_flags(call.number(), call.args());
  CallPlan plan = buffer_plan(SYS_recvfrom, {call.args()[0], 0, bytes, flags, 0, 0}, -1, nullptr, 0, 1, bytes,
                              OutRule::kResult, 1);
  plan.destinations[0].segment_count = static_cast<uint32_t>(segments.size());
  plan.segments = std::move(segments);
  return plan;
}

/// What a transfer that is cut to one frame brings at most.
uint64_t most_received(const CallPlan& plan) {
  uint64_t bytes = 0;
  for (const OutRegion& out : plan.outs) {
    auto rule = static_cast<OutRule>(out.rule);
    if (rule == OutRule::kResult || rule == OutRule::kSpread) bytes += out.max_bytes;
  }
  return bytes;
}

}  // namespace

uint64_t Supervisor::take_moved_bytes(GuestThread& thread) {
  std::lock_guard lock(thread.mutex);
  return std::exchange(thread.moved_bytes, 0);
}

void Supervisor::give_bytes(GuestThread& thread, PendingCall& call, const SyscallRow& row, uint64_t total) {
  NotifiedMemory memory(thread.outer_tid);
  for (;;) {
    uint64_t done;
    {
      std::lock_guard lock(thread.mutex);
      done = thread.moved_bytes;
    }
    Result<CallPlan> plan = done == 0 ? plan_call(row, call.args(), memory) : plan_rest(call, done, memory);
    if (!plan && done != 0)
      return answer_and_deliver(thread, call, Answer::value(static_cast<int64_t>(take_moved_bytes(thread))));
    if (!plan)
      return bring_home(thread, call, std::string(row.name) + " carries too much", Afterwards::kMayReturn);
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
        thread.moved_bytes = done + reply->moved_bytes;
        signal = thread.has_signal();
      }
      // A signal ends the call here, as it would have at home; a move takes along how far it has come.
      if (signal)
        return answer_and_deliver(thread, call,
                                  Answer::value(static_cast<int64_t>(take_moved_bytes(thread))));
      if (thread.guest->freezing) return answer_when_interrupted(thread, call, kErestartsys);
      continue;
    }
    if (reply->result > 0 && done + static_cast<uint64_t>(reply->result) < total &&
        static_cast<uint64_t>(reply->result) == carried) {
      std::lock_guard lock(thread.mutex);
      thread.moved_bytes = done + carried;
      continue;
    }
    take_moved_bytes(thread);
    // What went wrong behind the first part, the program meets with its next call.
    if (done != 0) reply->result = static_cast<int64_t>(done) + std::max<int64_t>(reply->result, 0);
    finish_call(thread, call, *plan, reply);
    return;
  }
}

/// Of a receive that has brought something already. False: the call has been answered, as of ask_for_call.
bool Supervisor::goes_on_receiving(GuestThread& thread, PendingCall& call, bool* stream) {
  int type = 0;
  const uint32_t bytes = sizeof type;
  CallPlan ask = buffer_plan(SYS_getsockopt, {call.args()[0], SOL_SOCKET, SO_TYPE, 0, 0, 0}, 4, &bytes,
                             sizeof bytes, 3, sizeof type, OutRule::kFixed, 1);
  CallReply reply;
  if (!ask_for_call(thread, call, ask, kErestartsys, &reply)) return false;
  if (reply.result == 0 && !reply.outs.empty() && reply.outs[0].size() == sizeof type)
    memcpy(&type, reply.outs[0].data(), sizeof type);
  *stream = type == SOCK_STREAM;
  return true;
}

/// A reply with less than all is the end, unless a move has begun meanwhile: it may be what has broken the call off.
/// Then the rest is asked for, which ends at once if there was a reason of its own.
void Supervisor::receive_all(GuestThread& thread, PendingCall& call, const CallPlan& whole, uint64_t total,
                             int64_t begun_ns) {
  Guest& guest = *thread.guest;
  NotifiedMemory memory(thread.outer_tid);
  const uint32_t moves = guest.moves_begun;
  bool asked = false;
  for (;;) {
    uint64_t done;
    {
      std::lock_guard lock(thread.mutex);
      done = thread.moved_bytes;
    }
    if (done != 0 && !asked) {
      bool stream = false;
      if (!goes_on_receiving(thread, call, &stream)) return end_deadline(thread, call);
      if (!stream) break;
      asked = true;
    }
    CallPlan plan = done == 0 ? whole : plan_rest_of_receive(call, done, memory);
    if (!call.valid()) return call.abandon();
    Result<CallReply> reply = exchange(thread, plan);
    bool signal;
    {
      std::lock_guard lock(thread.mutex);
      signal = thread.has_signal();
    }
    if (!reply || reply->verdict == Verdict::kRestart) {
      if (reply && signal && done != 0 && !guest.freezing) break;
      note_beginning(thread, call, begun_ns);
      if (finish_call(thread, call, plan, reply)) return end_deadline(thread, call);
      continue;
    }
    auto result = static_cast<uint64_t>(std::max<int64_t>(reply->result, 0));
    bool moved = guest.freezing || guest.moves_begun != moves;
    bool cut = result == most_received(plan);
    if (result == 0 || done + result >= total || signal || (!moved && !cut)) {
      take_moved_bytes(thread);
      // What went wrong behind the first part, the program meets with its next call.
      if (done != 0) reply->result = static_cast<int64_t>(done + result);
      finish_call(thread, call, plan, reply);
      return end_deadline(thread, call);
    }
    if (!deliver_outs(plan, *reply, memory)) {
      take_moved_bytes(thread);
      answer_and_deliver(thread, call, Answer::value(-EFAULT));
      return end_deadline(thread, call);
    }
    {
      std::lock_guard lock(thread.mutex);
      thread.moved_bytes = done + result;
    }
    if (guest.freezing) {
      note_beginning(thread, call, begun_ns);
      return answer_when_interrupted(thread, call, kErestartsys);
    }
  }
  answer_and_deliver(thread, call, Answer::value(static_cast<int64_t>(take_moved_bytes(thread))));
  end_deadline(thread, call);
}

}  // namespace mosix
