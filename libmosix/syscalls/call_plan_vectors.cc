// Vectors of pointers: argument lists and iovecs. The array goes as an in room; each pointer in it becomes a
// Reloc; what it points to gets a room of its own.
#include "libmosix/syscalls/call_planner.h"

namespace mosix {
namespace {

constexpr uint64_t kMaxArgumentBytes = 131072;  ///< MAX_ARG_STRLEN: a longer word of argv is E2BIG at home

/// Reads strings that lie close to one another, as those of argv do, without a read for each.
class StringReader {
 public:
  explicit StringReader(GuestMemory& memory) : memory_(memory) {}

  /// Without terminator, cut at kMaxArgumentBytes; nothing if the guest cannot read it either.
  std::optional<std::string> read(uint64_t address) {
    std::string text;
    while (text.size() < kMaxArgumentBytes) {
      const uint64_t at = address + text.size();
      if (at < start_ || at >= start_ + bytes_) {
        start_ = at;
        // To the end of the third page: strings follow one another, and no more than that is read in vain.
        bytes_ = memory_.read_some(at, cache_.data(), cache_.size() - at % 4096);
        if (bytes_ == 0) return std::nullopt;
      }
      const char* from = cache_.data() + (at - start_);
      const size_t left = start_ + bytes_ - at;
      const auto* zero = static_cast<const char*>(memchr(from, 0, left));
      text.append(from, zero != nullptr ? static_cast<size_t>(zero - from) : left);
      if (zero != nullptr) break;
    }
    if (text.size() > kMaxArgumentBytes) text.resize(kMaxArgumentBytes);
    return text;
  }

 private:
  GuestMemory& memory_;
  std::array<char, 4 * 4096> cache_;
  uint64_t start_ = 0;
  size_t bytes_ = 0;
};

/// The words of a null-terminated array, without the null. Nothing if it is not readable to its end.
std::optional<std::vector<uint64_t>> read_pointers(GuestMemory& memory, uint64_t address) {
  std::vector<uint64_t> pointers;
  std::array<uint64_t, 512> page;
  for (;;) {
    const uint64_t at = address + pointers.size() * sizeof(uint64_t);
    const size_t wanted = (4096 - at % 4096) < 8 ? 8 : (4096 - at % 4096) / 8 * 8;
    const size_t count = memory.read_some(at, page.data(), wanted) / sizeof(uint64_t);
    for (size_t i = 0; i < count; ++i) {
      if (page[i] == 0) return pointers;
      pointers.push_back(page[i]);
    }
    if (count == 0) return std::nullopt;
    if (pointers.size() > kMaxRelocs) return pointers;
  }
}

}  // namespace

Status CallPlanner::plan_string_array(size_t index) {
  const auto pointers = read_pointers(memory_, args_[index]);
  if (!pointers) return make_bad(index), Status{};
  if (pointers->size() > kMaxRelocs) return cannot_carry(row_, "more arguments than one frame carries");
  const Room array = layout_.add_in((pointers->size() + 1) * sizeof(uint64_t));
  const uint32_t at = layout_.offset_of(array);
  StringReader strings(memory_);
  for (size_t i = 0; i < pointers->size(); ++i) {
    const auto word_at = static_cast<uint32_t>(at + i * sizeof(uint64_t));
    const auto text = strings.read((*pointers)[i]);
    if (!text) {
      layout_.set_word(word_at, bad_pointer_for((*pointers)[i]));
      continue;
    }
    if (text->size() + 1 > layout_.data_left())
      return cannot_carry(row_, "longer arguments than one frame carries");
    const Room room = layout_.add_in(text->size() + 1, 1);
    memcpy(layout_.bytes_of(room), text->data(), text->size());
    layout_.point_word(word_at, room);
  }
  layout_.point_argument(index, array);
  return {};
}

/// The guest's array. EFAULT or EINVAL say what home's kernel would; the caller lets it.
Result<std::vector<GuestIovec>> CallPlanner::take_iovecs(uint64_t address, uint64_t count) {
  if (count > kMaxIovecs) return fail(EINVAL, "iovec count");
  if (is_hopeless(address)) return fail(EFAULT, "iovec");
  std::vector<GuestIovec> iovecs(count);
  TRY_VOID(memory_.read(address, iovecs.data(), count * kIovecBytes));
  return iovecs;
}

/// Copies what the iovecs point to into in rooms and fills the array at `array_at`, which has room for
/// `capacity` entries. An entry that can be read only in part becomes two, the second of which faults, so
/// that home's kernel transfers what Linux would. Answers how many entries there are now: fewer where
/// `may_cut` let a frame's bound cut the transfer.
Result<uint64_t> CallPlanner::gather(uint32_t array_at, uint32_t capacity,
                                     const std::vector<GuestIovec>& iovecs, bool may_cut) {
  uint64_t used = 0;
  const auto entry = [&](uint64_t bytes) {
    layout_.set_word(static_cast<uint32_t>(array_at + used * kIovecBytes + 8), bytes);
    return static_cast<uint32_t>(array_at + used++ * kIovecBytes);
  };
  bool split = false;
  for (const GuestIovec& iovec : iovecs) {
    uint64_t bytes = iovec.bytes;
    const bool is_negative = static_cast<int64_t>(bytes) < 0;
    if (is_negative || (is_hopeless(iovec.base) && bytes != 0)) {
      layout_.set_word(entry(bytes), bad_pointer_for(iovec.base));
      continue;
    }
    const uint64_t left = layout_.data_left();
    if (bytes > left && !may_cut) return cannot_carry(row_, "more bytes than one frame carries");
    const bool is_cut = bytes > left;
    if (is_cut) bytes = left;
    const Room room = layout_.add_in(bytes, alignment_for(iovec.base, bytes));
    size_t readable = bytes;
    if (bytes != 0 && !memory_.read(iovec.base, layout_.bytes_of(room), bytes))
      readable = memory_.read_some(iovec.base, layout_.bytes_of(room), bytes);
    if (readable == bytes) {
      layout_.point_word(entry(bytes), room);
    } else {
      if (readable != 0 && !split && capacity > iovecs.size()) {
        split = true;
        layout_.point_word(entry(readable), room);
        bytes -= readable;
      }
      layout_.set_word(entry(bytes), kBadPointer);
    }
    if (is_cut) break;
  }
  return used;
}

/// Makes out rooms for what the iovecs point to; the transfer's bytes come back spread over them in order.
Result<uint64_t> CallPlanner::scatter(uint32_t array_at, const std::vector<GuestIovec>& iovecs,
                                      bool may_cut) {
  uint64_t used = 0;
  for (const GuestIovec& iovec : iovecs) {
    const auto at = static_cast<uint32_t>(array_at + used++ * kIovecBytes);
    uint64_t bytes = iovec.bytes;
    layout_.set_word(at + 8, bytes);
    if (static_cast<int64_t>(bytes) < 0 || (is_hopeless(iovec.base) && bytes != 0)) {
      layout_.set_word(at, bad_pointer_for(iovec.base));
      continue;
    }
    const uint64_t left = layout_.data_left();
    if (bytes > left && !may_cut) return cannot_carry(row_, "more bytes than one frame carries");
    const bool is_cut = bytes > left;
    if (is_cut) layout_.set_word(at + 8, bytes = left);
    const Room room = layout_.add_out(bytes, alignment_for(iovec.base, bytes));
    layout_.point_word(at, room);
    ScratchLayout::Out out{.room = room, .bytes = static_cast<uint32_t>(bytes), .rule = OutRule::kSpread};
    out.destination.address = iovec.base;
    layout_.add_region(out);
    if (is_cut) break;
  }
  return used;
}

Status CallPlanner::plan_iovec(size_t index) {
  const Arg& arg = row_.args[index];
  const uint64_t count = args_[arg.size.arg];
  const auto iovecs = take_iovecs(args_[index], count);
  if (!iovecs) return make_bad(index), Status{};
  // One entry more than the kernel's bound would be refused, so the last has no room to be split in.
  const auto capacity = static_cast<uint32_t>(std::min<uint64_t>(count + 1, kMaxIovecs));
  const Room array = layout_.add_in(capacity * kIovecBytes);
  const uint32_t at = layout_.offset_of(array);
  TRY(const uint64_t used, arg.direction == Direction::kIn ? gather(at, capacity, *iovecs, may_be_partial())
                                                           : scatter(at, *iovecs, may_be_partial()));
  change_argument(arg.size.arg, used);
  layout_.point_argument(index, array);
  return {};
}

}  // namespace mosix
