// Messages: sendmsg, recvmsg and their plural forms. Name, control data and iovecs of a msghdr get rooms of
// their own, the pointers to them become Relocs.
//
// The program's pointers are never written back: of a header only the fields that the kernel updates return
// (msg_namelen, msg_controllen, msg_flags, msg_len), as regions or segments between the pointers. Descriptors
// and credentials in control data need no translation: the guest's are home's own.
#include <climits>

#include "libmosix/syscalls/call_planner.h"

namespace mosix {
namespace {

constexpr uint64_t kMessageBytes = 64;         ///< struct mmsghdr
constexpr uint64_t kSocketAddressBytes = 128;  ///< the kernel cuts msg_namelen to sockaddr_storage

// struct msghdr, and in struct mmsghdr the count behind it.
constexpr uint32_t kNameAt = 0;
constexpr uint32_t kNameLengthAt = 8;
constexpr uint32_t kIovecsAt = 16;
constexpr uint32_t kIovecCountAt = 24;
constexpr uint32_t kControlAt = 32;
constexpr uint32_t kControlLengthAt = 40;
constexpr uint32_t kFlagsEnd = 52;  ///< controllen and flags lie together and return together
constexpr uint32_t kHeaderBytes = 56;
constexpr uint32_t kCountAt = 56;
constexpr uint32_t kMaxRegionsOfMessage = 3;

}  // namespace

Status CallPlanner::plan_message(size_t index) {
  const Room room = layout_.add_in(kHeaderBytes);
  if (!memory_.read(args_[index], layout_.bytes_of(room), kHeaderBytes)) return make_bad(index), Status{};
  layout_.point_argument(index, room);
  const uint32_t at = layout_.offset_of(room);
  if (row_.args[index].direction == Direction::kIn) return send_message(at, may_be_partial());

  const bool has_name = read_word(at + kNameAt) != 0;
  TRY_VOID(receive_names(at, INT64_MIN));
  TRY_VOID(receive_scattered(at));
  if (has_name) {
    ScratchLayout::Out length{.room = room, .delta = kNameLengthAt, .bytes = sizeof(uint32_t)};
    length.destination.address = args_[index] + kNameLengthAt;
    layout_.add_region(length);
  }
  ScratchLayout::Out rest{.room = room, .delta = kControlLengthAt, .bytes = kFlagsEnd - kControlLengthAt};
  rest.destination.address = args_[index] + kControlLengthAt;
  layout_.add_region(rest);
  return {};
}

/// The msghdr at `header_at` is the guest's; its pointers become ours, all going in.
Status CallPlanner::send_message(uint32_t header_at, bool may_cut) {
  const auto name_bytes = static_cast<int32_t>(read_word(header_at + kNameLengthAt));
  const uint64_t name = name_bytes < 0 ? kBadPointer : read_word(header_at + kNameAt);
  point_to_bytes(header_at + kNameAt, name,
                 std::min<uint64_t>(static_cast<uint64_t>(std::max(name_bytes, 0)), kSocketAddressBytes));

  const uint64_t control_bytes = read_word(header_at + kControlLengthAt);
  const bool is_refused = control_bytes > INT_MAX;  // ENOBUFS, before it is looked at
  if (!is_refused && control_bytes > layout_.data_left()) return cannot_carry(row_, "too much control data");
  point_to_bytes(header_at + kControlAt, is_refused ? kBadPointer : read_word(header_at + kControlAt),
                 is_refused ? 0 : control_bytes);

  const uint64_t count = read_word(header_at + kIovecCountAt);
  const auto iovecs = take_iovecs(read_word(header_at + kIovecsAt), count);
  if (!iovecs) return make_bad_word(header_at + kIovecsAt);
  const auto capacity = static_cast<uint32_t>(std::min<uint64_t>(count + 1, kMaxIovecs));
  const Room array = layout_.add_in(capacity * kIovecBytes);
  TRY(const uint64_t used, gather(layout_.offset_of(array), capacity, *iovecs, may_cut));
  layout_.set_word(header_at + kIovecCountAt, used);
  layout_.point_word(header_at + kIovecsAt, array);
  return {};
}

/// An out room for what the header's pointer at `pointer_at` points to; home's kernel leaves its true length
/// in the header, at `length_at`.
void CallPlanner::receive_behind(uint32_t pointer_at, uint64_t bytes, OutRule rule, uint32_t length_at,
                                 int64_t result_above) {
  const uint64_t address = read_word(pointer_at);
  if (address == 0) return;
  if (is_hopeless(address)) return;  // as bad at home
  const Room room = layout_.add_out(bytes);
  layout_.point_word(pointer_at, room);
  ScratchLayout::Out out{
      .room = room, .bytes = static_cast<uint32_t>(bytes), .rule = rule, .param = length_at};
  out.destination.address = address;
  out.destination.result_above = result_above;
  out.destination.control_messages = rule == OutRule::kLength64;
  layout_.add_region(out);
}

/// Name and control data of the msghdr at `header_at`.
Status CallPlanner::receive_names(uint32_t header_at, int64_t result_above) {
  // A negative length is refused at home; what the pointer then says does not matter.
  const auto name_bytes = static_cast<int32_t>(read_word(header_at + kNameLengthAt));
  receive_behind(header_at + kNameAt,
                 std::min<uint64_t>(static_cast<uint64_t>(std::max(name_bytes, 0)), kSocketAddressBytes),
                 OutRule::kLength32, header_at + kNameLengthAt, result_above);
  const uint64_t control_bytes = read_word(header_at + kControlLengthAt);
  if (read_word(header_at + kControlAt) != 0 && control_bytes > layout_.data_left())
    return cannot_carry(row_, "too much room for control data");
  receive_behind(header_at + kControlAt, control_bytes, OutRule::kLength64, header_at + kControlLengthAt,
                 result_above);
  return {};
}

/// recvmsg: the result is the number of bytes, spread over the iovecs.
Status CallPlanner::receive_scattered(uint32_t header_at) {
  const uint64_t count = read_word(header_at + kIovecCountAt);
  const auto iovecs = take_iovecs(read_word(header_at + kIovecsAt), count);
  if (!iovecs) return make_bad_word(header_at + kIovecsAt);
  const Room array = layout_.add_in(count * kIovecBytes);
  TRY(const uint64_t used, scatter(layout_.offset_of(array), *iovecs, may_be_partial()));
  layout_.set_word(header_at + kIovecCountAt, used);
  layout_.point_word(header_at + kIovecsAt, array);
  return {};
}

/// recvmmsg: the result is the number of messages, so each one's bytes come back as one piece of msg_len
/// bytes, and are scattered on delivery.
Status CallPlanner::receive_pieces(uint32_t header_at, int64_t result_above) {
  const uint64_t count = read_word(header_at + kIovecCountAt);
  const auto iovecs = take_iovecs(read_word(header_at + kIovecsAt), count);
  const auto is_bad = [](const GuestIovec& iovec) {
    return static_cast<int64_t>(iovec.bytes) < 0 || (iovec.bytes != 0 && is_hopeless(iovec.base));
  };
  if (!iovecs || std::any_of(iovecs->begin(), iovecs->end(), is_bad))
    return make_bad_word(header_at + kIovecsAt);

  uint64_t bytes = 0;
  const auto first_segment = static_cast<uint32_t>(layout_.segments().size());
  for (const GuestIovec& iovec : *iovecs) {
    if (iovec.bytes > layout_.data_left() - std::min(bytes, layout_.data_left()))
      return cannot_carry(row_, "more bytes than one frame carries");
    layout_.segments().push_back(
        OutSegment{static_cast<uint32_t>(bytes), static_cast<uint32_t>(iovec.bytes), iovec.base});
    bytes += iovec.bytes;
  }
  const Room room = layout_.add_out(bytes);
  const Room array = layout_.add_in(kIovecBytes);
  const uint32_t array_at = layout_.offset_of(array);
  layout_.point_word(array_at, room);
  layout_.set_word(array_at + 8, bytes);
  layout_.set_word(header_at + kIovecCountAt, 1);
  layout_.point_word(header_at + kIovecsAt, array);
  ScratchLayout::Out out{.room = room, .bytes = static_cast<uint32_t>(bytes), .rule = OutRule::kLength32};
  out.param = header_at + kCountAt;
  out.destination.result_above = result_above;
  out.destination.first_segment = first_segment;
  out.destination.segment_count = static_cast<uint32_t>(iovecs->size());
  layout_.add_region(out);
  return {};
}

Status CallPlanner::plan_one_of_messages(size_t index, uint32_t header_at, int64_t position) {
  if (row_.args[index].direction == Direction::kIn) return send_message(header_at, false);
  if (layout_.region_count() + kMaxRegionsOfMessage + 1 > kMaxOutRegions)
    return cannot_carry(row_, "more messages than one frame carries");
  TRY_VOID(receive_names(header_at, position));
  // What the kernel never fills must not look filled.
  layout_.set_word(header_at + kCountAt, read_word(header_at + kCountAt) >> 32 << 32);
  return receive_pieces(header_at, position);
}

/// sendmmsg (direction in) and recvmmsg. The headers return as one region of as many as the result says, of
/// which only the fields between the pointers are delivered.
Status CallPlanner::plan_messages(size_t index) {
  const Arg& arg = row_.args[index];
  const bool receives = arg.direction != Direction::kIn;
  const uint64_t asked = std::min<uint64_t>(static_cast<uint32_t>(args_[arg.size.arg]), kMaxIovecs);
  const Room array = layout_.add_in(asked * kMessageBytes);
  const uint64_t readable =
      memory_.read_some(args_[index], layout_.bytes_of(array), asked * kMessageBytes) / kMessageBytes;
  if (readable == 0 && asked != 0) return make_bad(index), Status{};
  const uint32_t at = layout_.offset_of(array);
  uint32_t count = 0;
  std::vector<bool> has_name(readable);
  for (; count < readable; ++count) {
    const auto header_at = static_cast<uint32_t>(at + count * kMessageBytes);
    has_name[count] = read_word(header_at + kNameAt) != 0;
    Status status = plan_one_of_messages(index, header_at, count);
    if (status) continue;
    if (count == 0 || !may_be_partial()) return status;
    break;
  }
  change_argument(arg.size.arg, count);
  layout_.point_argument(index, array);

  ScratchLayout::Out out{.room = array, .rule = OutRule::kResult, .param = kMessageBytes};
  out.bytes = static_cast<uint32_t>(count * kMessageBytes);
  out.destination.address = args_[index];
  out.destination.first_segment = static_cast<uint32_t>(layout_.segments().size());
  const auto add_field = [&](uint32_t i, uint32_t field, uint32_t bytes) {
    const auto offset = static_cast<uint32_t>(i * kMessageBytes + field);
    layout_.segments().push_back(OutSegment{offset, bytes, args_[index] + offset});
    ++out.destination.segment_count;
  };
  for (uint32_t i = 0; i < count; ++i) {
    if (receives && has_name[i]) add_field(i, kNameLengthAt, sizeof(uint32_t));
    if (receives) add_field(i, kControlLengthAt, kFlagsEnd - kControlLengthAt);
    add_field(i, kCountAt, sizeof(uint32_t));
  }
  layout_.add_region(out);
  return {};
}

}  // namespace mosix
