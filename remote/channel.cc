#include "remote/channel.h"

#include <sys/socket.h>

#include <utility>

#include "libmosix/common/net.h"

namespace mosix {
namespace {
constexpr uint32_t kMaxFrameBytes = kMaxScratchBytes + (2u << 20);
constexpr size_t kReceiveBytes = 4 << 10;

/// The time that a traced call spends on the way home, there, and on the way back.
class RoundTrip {
 public:
  explicit RoundTrip(GuestThread& thread)
      : thread_(thread.guest->traced ? &thread : nullptr), start_ns_(now_ns()) {}
  ~RoundTrip() {
    if (thread_ != nullptr) thread_->home_ns += now_ns() - start_ns_;
  }
  RoundTrip(const RoundTrip&) = delete;

 private:
  uint64_t now_ns() const {
    if (thread_ == nullptr) return 0;
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
  }
  GuestThread* thread_;
  uint64_t start_ns_;
};
}  // namespace

Result<Frame> receive_frame(int fd, std::vector<uint8_t>& inbox) {
  Frame frame;
  size_t need = sizeof frame.header;
  for (;;) {
    if (inbox.size() >= sizeof frame.header) {
      memcpy(&frame.header, inbox.data(), sizeof frame.header);
      if (frame.header.length > kMaxFrameBytes || frame.header.key_epoch != 0)
        return fail(EBADMSG, "frame from deputy");
      need = sizeof frame.header + frame.header.length;
    }
    if (inbox.size() >= need) break;
    // Whatever has come, in one call: a frame is usually one packet. Of a long one, just the rest.
    size_t have = inbox.size();
    inbox.resize(std::max(need, have + kReceiveBytes));
    ssize_t n;
    do n = ::recv(fd, inbox.data() + have, inbox.size() - have, 0);
    while (n < 0 && errno == EINTR);
    int error = errno;
    inbox.resize(have + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0) return fail(error, "receive from deputy");
    if (n == 0) return fail(EPIPE, "the deputy closed its channel");
  }
  auto body = inbox.begin() + sizeof frame.header;
  frame.body.assign(body, inbox.begin() + static_cast<ssize_t>(need));
  inbox.erase(inbox.begin(), inbox.begin() + static_cast<ssize_t>(need));
  if (inbox.capacity() > 4 * kReceiveBytes) inbox.shrink_to_fit();
  return frame;
}

Status send_frame(int fd, FrameType type, const Guest& guest, uint32_t sequence, uint32_t signals_acked,
                  const void* body, size_t bytes) {
  FrameHeader header{};
  header.length = static_cast<uint32_t>(bytes);
  header.type = static_cast<uint16_t>(type);
  header.epoch = guest.epoch;
  header.sequence = sequence;
  header.signals_acked = signals_acked;
  iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), bytes}};
  return send_fully(fd, parts, bytes > 0 ? 2 : 1);
}

void note_signal(GuestThread& thread, uint32_t number, const Siginfo& info) {
  if (static_cast<int32_t>(number - thread.signals_received) <= 0) return;
  thread.signals_received = number;
  thread.waiting.push_back({number, info});
}

Status note_signal_frame(GuestThread& thread, const Frame& frame) {
  if (frame.header.type != static_cast<uint16_t>(FrameType::kSignal) || frame.body.size() < sizeof(Siginfo))
    return fail(EBADMSG, "frame from the deputy is no signal");
  Siginfo info;
  memcpy(&info, frame.body.data(), sizeof info);
  std::lock_guard lock(thread.mutex);
  note_signal(thread, frame.header.sequence, info);
  return {};
}

Status drain_inbox(GuestThread& thread) {
  while (!thread.inbox.empty()) {
    TRY(Frame frame, receive_frame(thread.channel.get(), thread.inbox));
    TRY_VOID(note_signal_frame(thread, frame));
  }
  return {};
}

Status send_raw(GuestThread& thread, FrameType type, const void* body, size_t bytes, InMove in_move) {
  uint32_t sequence, acked;
  {
    std::lock_guard lock(thread.mutex);
    if (thread.guest->freezing && in_move == InMove::kRefuse)
      return fail(kFrozen, "the guest is being moved");
    sequence = thread.in_flight = ++thread.sequence;
    acked = thread.signals_received;
    thread.exchanging = true;
  }
  Status sent = send_frame(thread.channel.get(), type, *thread.guest, sequence, acked, body, bytes);
  if (sent) return sent;
  std::lock_guard lock(thread.mutex);
  thread.exchanging = false;
  return sent;
}

Result<CallReply> exchange_raw(GuestThread& thread, FrameType type, const void* body, size_t bytes,
                               const CallPlan& plan, InMove in_move) {
  RoundTrip measured(thread);
  TRY_VOID(send_raw(thread, type, body, bytes, in_move));
  return await_reply(thread, plan);
}

namespace {

/// `hear_first`: a sibling has sent a signal meanwhile, of which the reply may know nothing.
Result<CallReply> receive_reply(GuestThread& thread, const CallPlan& plan, bool& hear_first) {
  struct Done {
    GuestThread& thread;
    ~Done() {
      std::lock_guard lock(thread.mutex);
      thread.exchanging = false;
    }
  } done{thread};
  for (;;) {
    TRY(Frame frame, receive_frame(thread.channel.get(), thread.inbox));
    if (frame.header.type == static_cast<uint16_t>(FrameType::kSignal)) {
      TRY_VOID(note_signal_frame(thread, frame));
      continue;
    }
    if (frame.header.type != static_cast<uint16_t>(FrameType::kReply) ||
        frame.header.sequence != thread.in_flight)
      return fail(EBADMSG, "frame " + std::to_string(frame.header.type) + " of call " +
                               std::to_string(frame.header.sequence) +
                               " from the deputy, awaited was the reply to " +
                               std::to_string(thread.in_flight));
    TRY(CallReply reply, parse_reply(plan, frame.body.data(), frame.body.size()));
    std::lock_guard lock(thread.mutex);
    for (size_t i = 0; i < reply.signals.size(); ++i)
      note_signal(thread, reply.first_signal + static_cast<uint32_t>(i), reply.signals[i]);
    thread.exchanging = false;
    hear_first = std::exchange(thread.hear_first, false);
    return reply;
  }
}

}  // namespace

Result<CallReply> await_reply(GuestThread& thread, const CallPlan& plan) {
  bool hear_first = false;
  TRY(CallReply reply, receive_reply(thread, plan, hear_first));
  while (hear_first) {
    TRY_VOID(send_raw(thread, FrameType::kHear, nullptr, 0, InMove::kFinish));
    TRY([[maybe_unused]] CallReply heard, receive_reply(thread, plain_plan(0, {}), hear_first));
  }
  return reply;
}

Result<CallReply> exchange(GuestThread& thread, const CallPlan& plan) {
  std::vector<uint8_t> body = plan.frame_body();
  thread.guest->forwarded_calls.fetch_add(1, std::memory_order_relaxed);
  return exchange_raw(thread, FrameType::kCall, body.data(), body.size(), plan);
}

Result<CallReply> exchange_to_end(GuestThread& thread, const CallPlan& plan) {
  std::vector<uint8_t> body = plan.frame_body();
  for (;;) {
    thread.guest->forwarded_calls.fetch_add(1, std::memory_order_relaxed);
    Result<CallReply> reply =
        exchange_raw(thread, FrameType::kCall, body.data(), body.size(), plan, InMove::kFinish);
    if (!reply || reply->verdict != Verdict::kRestart) return reply;
  }
}

CallPlan plain_plan(uint32_t number, std::array<uint64_t, 6> args) {
  CallPlan plan;
  plan.body.number = number;
  for (size_t i = 0; i < args.size(); ++i) plan.body.args[i] = args[i];
  return plan;
}

CallPlan buffer_plan(uint32_t number, std::array<uint64_t, 6> args, int in_arg, const void* in,
                     uint32_t in_bytes, int out_arg, uint32_t out_bytes, OutRule rule, uint32_t unit) {
  CallPlan plan = plain_plan(number, args);
  if (in_arg >= 0) {
    plan.body.arg_relocs |= 1u << in_arg;
    plan.body.args[in_arg] = 0;
    plan.scratch.assign(static_cast<const uint8_t*>(in), static_cast<const uint8_t*>(in) + in_bytes);
  }
  plan.body.in_bytes = in_bytes;
  uint32_t offset = (in_bytes + 15) & ~15u;
  plan.body.scratch_bytes = offset;
  if (out_arg >= 0) {
    plan.body.arg_relocs |= 1u << out_arg;
    plan.body.args[out_arg] = offset;
    plan.outs.push_back({.offset = offset,
                         .max_bytes = out_bytes,
                         .rule = static_cast<uint16_t>(rule),
                         .reserved = 0,
                         .param = unit});
    plan.destinations.push_back({.address = 0, .max_bytes = out_bytes});
    plan.body.scratch_bytes = (offset + out_bytes + 15) & ~15u;
  }
  plan.body.out_count = static_cast<uint32_t>(plan.outs.size());
  return plan;
}

}  // namespace mosix
