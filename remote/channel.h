// The away end of a guest thread's channel: one frame out, one frame back, on a blocking TCP socket. Used by
// the worker that has the thread's call in hand, or, while the guest computes, by the channel watcher.
#pragma once

#include "remote/guest.h"

namespace mosix {

struct Frame {
  FrameHeader header{};
  std::vector<uint8_t> body;
};

/// One whole frame; what was received beyond it waits in the inbox. EPIPE when the deputy has closed; EBADMSG
/// for lengths beyond any limit.
Result<Frame> receive_frame(int fd, std::vector<uint8_t>& inbox);
/// Notes the SIGNAL frames that wait in the inbox; to be called before the channel is left to the watcher,
/// which hears of the socket only. GuestThread::mutex must not be held.
Status drain_inbox(GuestThread& thread);

Status send_frame(int fd, FrameType type, const Guest& guest, uint32_t sequence, uint32_t signals_acked,
                  const void* body, size_t bytes);

/// Notes a SIGNAL frame (number in its sequence) or the signals of a reply. Numbers seen before are dropped: a
/// deputy that has connected anew repeats what it is not sure of. GuestThread::mutex must be held.
void note_signal(GuestThread& thread, uint32_t number, const Siginfo& info);

/// Notes a frame that must be a SIGNAL. GuestThread::mutex must not be held.
Status note_signal_frame(GuestThread& thread, const Frame& frame);

/// A move has begun: nothing was sent, the call is to be made again.
inline constexpr int kFrozen = ERESTART;

/// Forwards a planned call and waits for its reply, as long as it takes. The signals that come with it or
/// before it are noted in the thread. The thread must be in_call (the caller owns the channel).
Result<CallReply> exchange(GuestThread& thread, const CallPlan& plan);
/// The same for a frame that is no call (fork).
enum class InMove { kRefuse, kFinish };
Result<CallReply> exchange_raw(GuestThread& thread, FrameType type, const void* body, size_t bytes,
                               const CallPlan& plan, InMove in_move = InMove::kRefuse);
/// The first half of that, for those who ask several threads at a time.
Status send_raw(GuestThread& thread, FrameType type, const void* body, size_t bytes,
                InMove in_move = InMove::kRefuse);
/// The second half: the reply to the call whose number is `in_flight`, with `exchanging` set.
Result<CallReply> await_reply(GuestThread& thread, const CallPlan& plan);
/// For the second half of what has begun to take effect, made with the right to trace the thread in hand: a move
/// that has begun meanwhile waits for that, and signals have to.
Result<CallReply> exchange_to_end(GuestThread& thread, const CallPlan& plan);

/// A plan for a call of the supervisor's own, without pointers.
CallPlan plain_plan(uint32_t number, std::array<uint64_t, 6> args);
/// One that carries `in` bytes and brings back `out_bytes` behind them; args[in_arg] and args[out_arg] become
/// pointers to them (-1: none).
CallPlan buffer_plan(uint32_t number, std::array<uint64_t, 6> args, int in_arg, const void* in,
                     uint32_t in_bytes, int out_arg, uint32_t out_bytes, OutRule rule, uint32_t unit);

}  // namespace mosix
