// The forwarder's second half: from the deputy's reply to the guest's memory. Runs in the supervisor. The
// reply comes from another machine: nothing in it is believed before it has been measured against the plan
// that this side made.
#include <algorithm>
#include <cstring>

#include "libmosix/syscalls/call_plan.h"

namespace mosix {
namespace {

constexpr size_t padded8(size_t bytes) { return (bytes + 7) / 8 * 8; }

/// Takes pieces off the front of a frame; knows how much is left.
class FrameReader {
 public:
  FrameReader(const uint8_t* data, size_t bytes) : at_(data), left_(bytes) {}
  bool take(void* to, size_t bytes) {
    if (bytes > left_) return false;
    if (bytes != 0) memcpy(to, at_, bytes);
    return skip(bytes);
  }
  bool skip(size_t bytes) {
    if (bytes > left_) return false;
    at_ += bytes;
    left_ -= bytes;
    return true;
  }
  size_t left() const { return left_; }

 private:
  const uint8_t* at_;
  size_t left_;
};

tl::unexpected<Error> garbled(const char* what) { return fail(EBADMSG, std::string("reply: ") + what); }

/// Calls `write(offset, bytes)` for each run of units that differ; stops at the first error.
template <class Write>
Status for_changed_runs(const uint8_t* now, const uint8_t* sent, size_t bytes, size_t unit, Write write) {
  size_t at = 0;
  const auto differs = [&](size_t offset) {
    return memcmp(now + offset, sent + offset, std::min(unit, bytes - offset)) != 0;
  };
  while (at < bytes) {
    if (!differs(at)) {
      at += unit;
      continue;
    }
    const size_t begin = at;
    while (at < bytes && differs(at)) at += unit;
    TRY_VOID(write(begin, std::min(at, bytes) - begin));
  }
  return {};
}

Status deliver_segments(const CallPlan& plan, const OutDestination& destination,
                        const std::vector<uint8_t>& data, GuestMemory& memory) {
  for (uint32_t i = 0; i < destination.segment_count; ++i) {
    const OutSegment& segment = plan.segments[destination.first_segment + i];
    if (segment.region_offset >= data.size()) continue;
    const size_t bytes = std::min<size_t>(segment.bytes, data.size() - segment.region_offset);
    TRY_VOID(memory.write(segment.address, data.data() + segment.region_offset, bytes));
  }
  return {};
}

/// The kernel fills each to its length.
Status deliver_control(uint64_t address, const std::vector<uint8_t>& data, GuestMemory& memory) {
  for (size_t at = 0; at < data.size();) {
    size_t left = data.size() - at;
    uint64_t length = left;  // of one that is cut off
    if (left >= sizeof length) memcpy(&length, data.data() + at, sizeof length);
    size_t bytes = std::clamp<uint64_t>(length, 1, left);
    TRY_VOID(memory.write(address + at, data.data() + at, bytes));
    at += std::min(padded8(bytes), left);
  }
  return {};
}

Status deliver_region(const CallPlan& plan, size_t index, const std::vector<uint8_t>& data,
                      GuestMemory& memory) {
  const OutDestination& destination = plan.destinations[index];
  if (destination.segment_count != 0) return deliver_segments(plan, destination, data, memory);
  if (destination.control_messages) return deliver_control(destination.address, data, memory);
  if (destination.unit_bytes == 0) return memory.write(destination.address, data.data(), data.size());
  const uint8_t* sent = plan.scratch.data() + plan.outs[index].offset;
  return for_changed_runs(data.data(), sent, data.size(), destination.unit_bytes,
                          [&](size_t offset, size_t bytes) {
                            return memory.write(destination.address + offset, data.data() + offset, bytes);
                          });
}

}  // namespace

Result<CallReply> parse_reply(const CallPlan& plan, const uint8_t* body, size_t bytes) {
  FrameReader reader(body, bytes);
  ReplyBody head{};
  if (!reader.take(&head, sizeof(head))) return garbled("shorter than its head");
  if (head.verdict > static_cast<uint32_t>(Verdict::kRestart)) return garbled("unknown verdict");
  if (head.out_count != 0 && head.out_count != plan.outs.size())
    return garbled("other regions than asked for");
  if (head.signal_count > kMaxSignalsPerReply) return garbled("too many signals");

  std::vector<uint32_t> lengths(head.out_count);
  const size_t length_bytes = lengths.size() * sizeof(uint32_t);
  if (!reader.take(lengths.data(), length_bytes) || !reader.skip(padded8(length_bytes) - length_bytes))
    return garbled("lengths are cut off");
  uint64_t region_bytes = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > plan.outs[i].max_bytes) return garbled("a region longer than asked for");
    region_bytes += lengths[i];
  }
  if (reader.left() != padded8(region_bytes) + head.signal_count * sizeof(Siginfo))
    return garbled("bytes are missing or left over");

  CallReply reply;
  reply.result = head.result;
  reply.verdict = static_cast<Verdict>(head.verdict);
  reply.first_signal = head.first_signal;
  reply.moved_bytes = std::min(head.moved_bytes, plan.body.wanted_bytes);
  reply.opened_in_proc = reply.verdict == Verdict::kDone && reply.result >= 0 && head.moved_bytes == 1;
  reply.outs.resize(lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    reply.outs[i].resize(lengths[i]);
    reader.take(reply.outs[i].data(), lengths[i]);
  }
  reader.skip(padded8(region_bytes) - region_bytes);
  reply.signals.resize(head.signal_count);
  reader.take(reply.signals.data(), reply.signals.size() * sizeof(Siginfo));
  return reply;
}

Status deliver_outs(const CallPlan& plan, const CallReply& reply, GuestMemory& memory) {
  for (size_t i = 0; i < reply.outs.size(); ++i) {
    const OutDestination& destination = plan.destinations[i];
    if (reply.outs[i].empty() || reply.result <= destination.result_above) continue;
    Status status = deliver_region(plan, i, reply.outs[i], memory);
    if (!status && !destination.may_fault) return status;
  }
  return {};
}

}  // namespace mosix
