// Direct calls: a guest thread that is away asks its deputy itself, over its own channel, where a trapped call takes a
// notification, a change to the supervisor and one back. Runs in the guest, on a stack of its own. Only calls that carry
// nothing but numbers; whatever else comes back than their plain result (a signal, a restart, silence that lasts) is
// handed over to the supervisor: the thread traps, and the supervisor finds the call made.
//
// No signal handler of the guest ever runs on top of this: signals are put in by the supervisor, which takes the
// channel back first (remote/direct_calls.cc), and where the guest's own kernel may send some, there are no direct calls.
#include <asm/unistd_64.h>

#include "libmosix/agent/agent.h"
#include "libmosix/agent/raw.h"

namespace mosix {
namespace {

constexpr int64_t kEINTR = 4;
constexpr uint64_t kMsgNosignal = 0x4000;
constexpr uint64_t kFutexWake = 1;
constexpr uint64_t kEverybody = 0x7fffffff;
/// Turns given to the worker of the last trapped call, which may still have the channel.
constexpr int kMostYields = 16;

enum Outcome : uint64_t { kDone = 0, kTrap = 1 };

bool take_channel(DirectHead* head) {
  if (load_acquire(&head->handed_over) != 0) return false;
  for (int yields = 0;; ++yields) {
    uint32_t state = 0;
    if (__atomic_compare_exchange_n(&head->state, &state, kDirectInCall, false, __ATOMIC_ACQUIRE,
                                    __ATOMIC_RELAXED))
      return true;
    if (state != kDirectBusy || yields == kMostYields) return false;
    raw_syscall(__NR_sched_yield);
  }
}

Outcome let_go(DirectHead* head, Outcome outcome) {
  uint32_t before = __atomic_fetch_and(&head->state, ~static_cast<uint32_t>(kDirectInCall), __ATOMIC_RELEASE);
  if ((before & kDirectWanted) != 0)
    raw_syscall(__NR_futex, address_of(&head->state), kFutexWake, kEverybody);
  return outcome;
}

Outcome hand_over(DirectHead* head, uint64_t received) {
  head->received = static_cast<uint32_t>(received);
  store_release(&head->handed_over, 1);
  return let_go(head, kTrap);
}

bool send_call(DirectHead* head, uint64_t channel) {
  auto* frame = reinterpret_cast<uint8_t*>(head) + kDirectFrame;
  for (uint64_t sent = 0, bytes = sizeof(FrameHeader) + sizeof(CallBody); sent < bytes;) {
    int64_t n = raw_syscall(__NR_sendto, channel, address_of(frame + sent), bytes - sent, kMsgNosignal);
    if (n < 0 && n != -kEINTR) return false;
    if (n > 0) sent += static_cast<uint64_t>(n);
  }
  return true;
}

}  // namespace
}  // namespace mosix

using namespace mosix;

extern "C" __attribute__((visibility("hidden"))) int64_t agent_direct_receive(uint64_t channel,
                                                                              uint8_t* buffer,
                                                                              uint64_t bytes);

/// `registers`: rax, rdi, rsi, rdx, r10, r8, r9 of the call; the result goes into the first.
extern "C" __attribute__((visibility("hidden"))) uint64_t agent_direct_call(uint64_t* registers,
                                                                            DirectHead* head) {
  if (!take_channel(head)) return kTrap;
  head->calls = head->calls + 1;
  head->sequence = kDirectSequences | ((head->sequence + 1) & ~(kDirectSequences | 0x40000000u));
  auto* area = reinterpret_cast<uint8_t*>(head);
  auto* header = reinterpret_cast<FrameHeader*>(area + kDirectFrame);
  auto* call = reinterpret_cast<CallBody*>(header + 1);
  header->sequence = head->sequence;
  header->signals_acked = head->signals_acked;
  call->number = static_cast<uint32_t>(registers[0]);
  for (int i = 0; i < 6; ++i) call->args[i] = registers[1 + i];
  uint64_t channel = kDirectMark | head->channel;
  // A channel that is broken, the supervisor will find so too.
  if (!send_call(head, channel)) return hand_over(head, 0);

  uint8_t* inbox = area + kDirectInbox;
  auto* reply = reinterpret_cast<const FrameHeader*>(inbox);
  auto* body = reinterpret_cast<const ReplyBody*>(reply + 1);
  constexpr uint64_t kPlainReply = sizeof *reply + sizeof *body;
  for (uint64_t received = 0; received < kPlainReply;) {
    int64_t n = agent_direct_receive(channel, inbox + received, kDirectInboxBytes - received);
    if (n <= 0) return hand_over(head, received);
    received += static_cast<uint64_t>(n);
    if (received < kPlainReply) continue;
    bool plain = received == kPlainReply && reply->length == sizeof *body && reply->key_epoch == 0 &&
                 reply->type == static_cast<uint16_t>(FrameType::kReply) &&
                 reply->sequence == head->sequence &&
                 body->verdict == static_cast<uint32_t>(Verdict::kDone) && body->out_count == 0 &&
                 body->signal_count == 0;
    if (!plain) return hand_over(head, received);
  }
  registers[0] = static_cast<uint64_t>(body->result);
  return let_go(head, kDone);
}
