// The forwarder's first half: from a trapped call to the frame that carries it home. Runs in the supervisor,
// on the thread that serves the guest's notification, with the guest thread stopped inside its call.
//
// The kernel's habits that shape this file:
// - Linux looks at descriptors before it looks at memory, and at most pointers late. Refusing a bad pointer
//   here would answer EFAULT where Linux says EBADF. So a bad pointer travels as kBadPointer.
// - A write whose buffer ends at an unmapped page transfers what is there, or nothing: the file decides.
// - What the kernel leaves untouched must stay untouched in the guest, or another thread's store between call
//   and reply would be undone: OutDestination::unit_bytes.
// Vectors of pointers are in call_plan_vectors.cc, structures with pointers inside in call_plan_nested.cc.
#include <sys/syscall.h>

#include <algorithm>
#include <numeric>

#include "libmosix/syscalls/call_planner.h"

namespace mosix {
namespace {

constexpr uint64_t kPathBytes = 4096;          ///< PATH_MAX: longer paths are ENAMETOOLONG at home
constexpr uint64_t kSocketAddressBytes = 128;  ///< sockaddr_storage: the kernel neither reads nor writes more
constexpr int64_t kMaxSelectBits = 1 << 20;  ///< fs.nr_open: select looks no further than the table is large

bool is_pointer_in(Direction direction) {
  return direction == Direction::kIn || direction == Direction::kInOut;
}
bool is_pointer_out(Direction direction) {
  return direction == Direction::kOut || direction == Direction::kInOut;
}

/// The largest unit in which a structure of this size can be compared.
uint16_t unit_for(uint64_t bytes) { return bytes % 8 == 0 ? 8 : bytes % 4 == 0 ? 4 : 1; }

bool is_timeout(const Arg& arg) {
  return arg.direction == Direction::kInOut && (arg.decode == "timespec" || arg.decode == "timeval");
}

void append(std::vector<uint8_t>& bytes, const void* data, size_t size) {
  const auto* begin = static_cast<const uint8_t*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

}  // namespace

Result<CallPlan> plan_call(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory) {
  return CallPlanner(row, args, memory).plan();
}

std::vector<uint8_t> CallPlan::frame_body() const {
  std::vector<uint8_t> bytes;
  bytes.reserve(sizeof(CallBody) + relocs.size() * sizeof(Reloc) + outs.size() * sizeof(OutRegion) +
                scratch.size() + 8);
  append(bytes, &body, sizeof(body));
  append(bytes, relocs.data(), relocs.size() * sizeof(Reloc));
  append(bytes, outs.data(), outs.size() * sizeof(OutRegion));
  append(bytes, scratch.data(), scratch.size());
  bytes.resize((bytes.size() + 7) / 8 * 8);
  return bytes;
}

/// The deputy moves the outs together in front, so they have to ascend: what is filled in place (in and out)
/// lies before what is only filled, whatever the order of the arguments. Iovecs keep theirs.
void ScratchLayout::put_outs_in_order() {
  std::vector<size_t> order(plan_.outs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return plan_.outs[a].offset < plan_.outs[b].offset; });
  std::vector<OutRegion> outs;
  std::vector<OutDestination> destinations;
  for (size_t i : order) {
    outs.push_back(plan_.outs[i]);
    destinations.push_back(plan_.destinations[i]);
  }
  plan_.outs = std::move(outs);
  plan_.destinations = std::move(destinations);
}

Result<CallPlan> ScratchLayout::finish(uint32_t number) {
  // A deputy puts scratch at a page if its in part is one of whole sectors.
  const bool has_sectors = std::any_of(rooms_.begin(), rooms_.end(),
                                       [](const Place& place) { return place.alignment >= kSectorBytes; });
  if (has_sectors) pad_to(plan_.scratch, kSectorBytes);
  plan_.body.number = number;
  plan_.body.in_bytes = static_cast<uint32_t>(plan_.scratch.size());
  uint64_t end = plan_.scratch.size();
  for (Place& place : rooms_) {
    if (place.out_bytes == 0) continue;
    end = (end + place.alignment - 1) / place.alignment * place.alignment;
    place.offset = static_cast<uint32_t>(end);
    end += place.out_bytes;
  }
  end = (end + 15) / 16 * 16;
  if (end > kMaxScratchBytes || word_pointers_.size() > kMaxRelocs || plan_.outs.size() > kMaxOutRegions)
    return fail(kCannotCarry, "call is larger than a frame");
  plan_.body.scratch_bytes = static_cast<uint32_t>(end);
  for (const Pointer& pointer : argument_pointers_)
    plan_.body.args[pointer.from] = rooms_[pointer.room].offset;
  for (const Pointer& pointer : word_pointers_)
    plan_.relocs.push_back(Reloc{pointer.from, rooms_[pointer.room].offset});
  plan_.body.reloc_count = static_cast<uint32_t>(plan_.relocs.size());
  plan_.body.out_count = static_cast<uint32_t>(plan_.outs.size());
  for (size_t i = 0; i < plan_.outs.size(); ++i) plan_.outs[i].offset += rooms_[region_rooms_[i]].offset;
  put_outs_in_order();
  return std::move(plan_);
}

Result<CallPlan> CallPlanner::plan() {
  if (row_.number < 0 || (row_.where != Where::kHome && row_.where != Where::kSplit))
    return cannot_carry(row_, "not a forwarded call");
  // Lengths behind pointers first: the buffers that they measure need them.
  for (size_t i = 0; i < args_.size(); ++i)
    if (row_.args[i].size.kind != SizeKind::kLengthAt) TRY_VOID(plan_argument(i));
  for (size_t i = 0; i < args_.size(); ++i)
    if (row_.args[i].size.kind == SizeKind::kLengthAt) TRY_VOID(plan_argument(i));
  return layout_.finish(static_cast<uint32_t>(number_));
}

Status CallPlanner::plan_argument(size_t index) {
  const Arg& arg = row_.args[index];
  const uint64_t value = args_[index];
  switch (arg.kind) {
    case ArgKind::kNone:
      return {};
    case ArgKind::kValue:
    case ArgKind::kHex:
    case ArgKind::kFd:
    case ArgKind::kDirFd:
    case ArgKind::kPid:
    case ArgKind::kSignal:
      layout_.set_argument(index, value);
      return {};
    case ArgKind::kLocalPointer:
      if (value != 0) return cannot_carry(row_, "an argument has a meaning only where the guest is");
      return {};
    default:
      break;
  }
  if (value == 0) return {};  // a null pointer stays one
  if (is_hopeless(value)) return layout_.set_argument(index, value), Status{};
  switch (arg.kind) {
    case ArgKind::kString:
      return plan_string(index);
    case ArgKind::kBuffer:
      return plan_buffer(index);
    case ArgKind::kStringArray:
      return plan_string_array(index);
    case ArgKind::kIovec:
      return plan_iovec(index);
    case ArgKind::kMsghdr:
      return plan_message(index);
    default:
      return plan_messages(index);
  }
}

/// Reads up to the terminator, a page at a time. A string without one within its bound goes home cut at the
/// bound, where it is as much too long as the whole.
Status CallPlanner::plan_string(size_t index) {
  const Arg& arg = row_.args[index];
  const uint64_t limit = arg.size.kind == SizeKind::kConst ? arg.size.bytes : kPathBytes;
  const uint64_t address = args_[index];
  std::vector<uint8_t> text;
  bool ended = false;
  while (!ended && text.size() < limit) {
    const uint64_t at = address + text.size();
    const size_t wanted = std::min<uint64_t>(4096 - at % 4096, limit - text.size());
    const size_t before = text.size();
    text.resize(before + wanted);
    const size_t got = memory_.read_some(at, text.data() + before, wanted);
    const auto* zero = static_cast<const uint8_t*>(memchr(text.data() + before, 0, got));
    ended = zero != nullptr;
    if (!ended && got < wanted) return make_bad(index), Status{};
    text.resize(ended ? static_cast<size_t>(zero - text.data()) : before + got);
  }
  const Room room = layout_.add_in(text.size() + 1);
  std::copy(text.begin(), text.end(), layout_.bytes_of(room));
  layout_.point_argument(index, room);
  return {};
}

/// How many bytes the argument has, cut where the call may be partial. 0 and a bad pointer for a count that
/// the kernel takes as negative.
Result<uint64_t> CallPlanner::buffer_bytes(size_t index) {
  const Arg& arg = row_.args[index];
  if (arg.size.kind == SizeKind::kConst) return arg.size.bytes;
  if (arg.size.kind == SizeKind::kNone) return cannot_carry(row_, "a buffer without a size");
  if (arg.size.kind == SizeKind::kCountInside) {
    uint32_t inside = 0;
    if (!memory_.read(args_[index] + arg.size.arg, &inside, sizeof inside)) return arg.size.head;
    return arg.size.head + uint64_t{inside} * arg.size.bytes;
  }
  const uint64_t count = args_[arg.size.arg];
  const uint64_t unit = std::max<uint32_t>(arg.size.bytes, 1);
  if (arg.decode == "sockaddr" && is_pointer_in(arg.direction)) {
    const auto bytes = static_cast<int32_t>(count);
    if (bytes < 0) make_bad(index);
    return std::min<uint64_t>(std::max(bytes, 0), kSocketAddressBytes);
  }
  // What no kernel accepts goes home as it is. Counts of structures are 32 bits wide there.
  const bool is_negative = static_cast<int64_t>(count) < 0;
  const bool is_absurd =
      count > INT32_MAX && (unit > 1 || (is_pointer_in(arg.direction) && !may_be_partial()));
  if (is_negative || is_absurd) {
    if (arg.size.head == 0) make_bad(index);
    return arg.size.head;  // which is looked at before the count
  }
  const uint64_t room = layout_.data_left() / unit;
  if (count <= room) return arg.size.head + count * unit;
  if (!may_be_partial()) return cannot_carry(row_, "more bytes than one frame carries");
  change_argument(arg.size.arg, room);
  return arg.size.head + room * unit;
}

Status CallPlanner::plan_buffer(size_t index) {
  const Arg& arg = row_.args[index];
  if (NestedPlan nested = nested_plan(arg.decode)) return (this->*nested)(index);
  if (arg.size.kind == SizeKind::kLengthAt) return plan_length_prefixed(index);
  if (arg.size.kind == SizeKind::kFdSet) return plan_fd_set(index);
  const bool reads = is_pointer_in(arg.direction);
  TRY(const uint64_t bytes, buffer_bytes(index));
  if (layout_.argument(index) == kBadPointer) return {};
  const uint32_t alignment = alignment_for(args_[index], bytes);
  if (!reads) {
    rooms_[index] = layout_.add_out(bytes, alignment);
  } else {
    if (bytes > layout_.data_left()) return cannot_carry(row_, "more bytes than one frame carries");
    const Room room = layout_.add_in(bytes, alignment);
    if (!memory_.read(args_[index], layout_.bytes_of(room), bytes)) return split_at_fault(index, room, bytes);
    rooms_[index] = room;
  }
  layout_.point_argument(index, *rooms_[index]);
  if (is_pointer_out(arg.direction)) add_buffer_regions(index, *rooms_[index], bytes);
  return {};
}

/// A write whose buffer ends at an unmapped page. Files take what there is, pipes nothing; so that home's
/// kernel decides, the call becomes its form with iovecs, the second of which faults.
Status CallPlanner::split_at_fault(size_t index, Room room, uint64_t bytes) {
  const bool is_write = row_.number == SYS_write || row_.number == SYS_pwrite64;
  const size_t readable = is_write ? memory_.read_some(args_[index], layout_.bytes_of(room), bytes) : 0;
  if (readable == 0) return make_bad(index), Status{};
  const Room array = layout_.add_in(2 * kIovecBytes);
  const uint32_t at = layout_.offset_of(array);
  layout_.point_word(at, room);
  layout_.set_word(at + 8, readable);
  layout_.set_word(at + kIovecBytes, kBadPointer);
  layout_.set_word(at + kIovecBytes + 8, bytes - readable);
  layout_.point_argument(index, array);
  change_argument(row_.args[index].size.arg, 2);
  number_ = row_.number == SYS_write ? SYS_writev : SYS_pwritev;
  return {};
}

/// The head comes back whenever the call succeeded, the rest as the row's size says.
void CallPlanner::add_buffer_regions(size_t index, Room room, uint64_t bytes) {
  const Arg& arg = row_.args[index];
  ScratchLayout::Out out{.room = room, .bytes = static_cast<uint32_t>(bytes)};
  out.destination.address = args_[index];
  out.destination.may_fault = arg.out_on_error && is_timeout(arg);
  if (arg.direction == Direction::kInOut) out.destination.unit_bytes = unit_for(bytes);
  if (arg.decode == "pollfd") out.destination.unit_bytes = sizeof(uint16_t);
  if (arg.out_on_error) {
    out.rule = OutRule::kAlways;
  } else if (arg.size.kind == SizeKind::kArgResult) {
    ScratchLayout::Out head = out;
    head.bytes = arg.size.head;
    layout_.add_region(head);
    out.delta += arg.size.head;
    out.bytes -= arg.size.head;
    out.destination.address += arg.size.head;
    out.rule = OutRule::kResult;
    out.param = std::max<uint32_t>(arg.size.bytes, 1);
  }
  layout_.add_region(out);
}

/// Socket addresses and options: the capacity stands behind another argument, which afterwards says how long
/// the answer is, even where it was cut.
Status CallPlanner::plan_length_prefixed(size_t index) {
  const Arg& arg = row_.args[index];
  int32_t capacity = 0;
  const std::optional<Room> length = rooms_[arg.size.arg];
  if (length) memcpy(&capacity, layout_.bytes_of(*length), sizeof(capacity));
  uint64_t bytes = std::max(capacity, 0);  // without a length, or with a negative one, the kernel refuses
  if (arg.decode == "sockaddr") bytes = std::min(bytes, kSocketAddressBytes);
  if (bytes > layout_.data_left()) return cannot_carry(row_, "more bytes than one frame carries");
  Room room;
  if (is_pointer_in(arg.direction)) {
    room = layout_.add_in(bytes);
    if (!memory_.read(args_[index], layout_.bytes_of(room), bytes)) return make_bad(index), Status{};
  } else {
    room = layout_.add_out(bytes);
  }
  layout_.point_argument(index, room);
  if (!is_pointer_out(arg.direction) || !length) return {};
  ScratchLayout::Out out{.room = room, .bytes = static_cast<uint32_t>(bytes), .rule = OutRule::kLength32};
  out.param = layout_.offset_of(*length);
  out.destination.address = args_[index];
  layout_.add_region(out);
  return {};
}

/// select looks at as many bits as are asked for, but at no more than home's descriptor table has, which is
/// why programs get away with a giant count and a small set. What can be read goes; only words that changed
/// come back.
Status CallPlanner::plan_fd_set(size_t index) {
  const uint8_t count_index = row_.args[index].size.arg;
  int64_t bits = static_cast<int32_t>(args_[count_index]);
  if (bits > kMaxSelectBits) change_argument(count_index, static_cast<uint64_t>(bits = kMaxSelectBits));
  const uint64_t bytes = static_cast<uint64_t>(std::max<int64_t>(bits, 0) + 63) / 64 * 8;
  const Room room = layout_.add_in(bytes);
  const size_t readable = memory_.read_some(args_[index], layout_.bytes_of(room), bytes);
  if (readable < std::min<uint64_t>(bytes, 8)) return make_bad(index), Status{};
  layout_.point_argument(index, room);
  if (!is_pointer_out(row_.args[index].direction)) return {};
  ScratchLayout::Out out{.room = room, .bytes = static_cast<uint32_t>(readable / 8 * 8)};
  out.destination.address = args_[index];
  out.destination.unit_bytes = 8;
  layout_.add_region(out);
  return {};
}

uint64_t CallPlanner::read_word(uint32_t at) const {
  uint64_t value;
  memcpy(&value, layout_.scratch() + at, sizeof(value));
  return value;
}

}  // namespace mosix
