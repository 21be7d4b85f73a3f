// Calls as text: what each kind of argument looks like, and when. See decode.h.
//
// Everything that is read here is read again after it was read for the call itself, without a lock: another
// thread of the guest may change it in between. The text is for people; nothing is decided by it.
#include "libmosix/syscalls/decode.h"

#include <fcntl.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include <fmt/format.h>

#include "libmosix/syscalls/decode_text.h"

namespace mosix {
namespace {

constexpr size_t kMaxStructBytes = 64 << 10;  ///< what of a structure or array is looked at
constexpr size_t kPathBytes = 4096;
constexpr int64_t kLastError = -4095;
constexpr int kRestartBlock = 516;

bool is_error(int64_t result) { return result < 0 && result >= kLastError; }

/// So many of the guest's bytes as can be read, at most `bytes`.
std::vector<uint8_t> copy_of(GuestMemory& memory, uint64_t address, uint64_t bytes, size_t limit) {
  std::vector<uint8_t> copy(std::min<uint64_t>(bytes, limit));
  if (!copy.empty() && !memory.read(address, copy.data(), copy.size()))
    copy.resize(memory.read_some(address, copy.data(), copy.size()));
  return copy;
}

std::string bytes_text(GuestMemory& memory, uint64_t address, uint64_t bytes, const DecodeOptions& options) {
  if (address == 0) return "NULL";
  const auto copy = copy_of(memory, address, bytes, options.string_bytes);
  if (copy.empty() && bytes != 0) return address_text(address);
  return quoted(copy.data(), copy.size(), options.string_bytes, bytes > copy.size());
}

std::string buffer_text(const Arg& arg, GuestMemory& memory, uint64_t address, uint64_t bytes,
                        const DecodeOptions& options) {
  if (address == 0) return "NULL";
  if (!is_struct_name(arg.decode)) return bytes_text(memory, address, bytes, options);
  const auto copy = copy_of(memory, address, bytes, kMaxStructBytes);
  const bool is_incomplete = arg.size.kind == SizeKind::kConst && copy.size() < bytes;
  if (is_incomplete || (copy.empty() && bytes != 0)) return address_text(address);
  return format_struct(arg.decode, StructView{copy.data(), copy.size(), options, memory});
}

std::string string_text(GuestMemory& memory, uint64_t address, size_t limit) {
  if (address == 0) return "NULL";
  std::string text;
  while (text.size() <= limit) {
    char page[256];
    const uint64_t at = address + text.size();
    const size_t wanted = sizeof(page) - at % sizeof(page);
    const size_t got = memory.read_some(at, page, wanted);
    const size_t length = strnlen(page, got);
    text.append(page, length);
    if (length < got) return quoted(text.data(), text.size(), limit);
    if (got < wanted) return address_text(address);
  }
  return quoted(text.data(), text.size(), limit);
}

std::string strings_text(const Arg& arg, GuestMemory& memory, uint64_t address,
                         const DecodeOptions& options) {
  if (address == 0) return "NULL";
  std::vector<uint64_t> pointers;
  constexpr size_t kMostCounted = 4096;
  uint64_t pointer = 0;
  while (pointers.size() < kMostCounted) {
    if (!memory.read(address + pointers.size() * sizeof(pointer), &pointer, sizeof(pointer)))
      return address_text(address);
    if (pointer == 0) break;
    pointers.push_back(pointer);
    if (arg.name != "envp" && pointers.size() > options.array_items) break;
  }
  if (arg.name == "envp") return fmt::format("{} /* {} vars */", address_text(address), pointers.size());
  Items items(options.array_items);
  for (uint64_t one : pointers) {
    if (!items.has_room()) break;
    items.add(string_text(memory, one, options.string_bytes));
  }
  return items.finish();
}

/// Bytes of a transfer that goes out: all that there are.
constexpr int64_t kSent = INT64_MAX;

/// What a call has read or, if `filled` says how much, has filled in order.
std::string iovec_text(GuestMemory& memory, uint64_t address, uint64_t count, int64_t filled,
                       const DecodeOptions& options) {
  if (address == 0) return "NULL";
  struct {
    uint64_t base, bytes;
  } entry;
  Items items(options.array_items);
  auto left = static_cast<uint64_t>(std::max<int64_t>(filled, 0));
  for (uint64_t i = 0; i < count && items.has_room(); ++i) {
    if (!memory.read(address + i * sizeof(entry), &entry, sizeof(entry))) return address_text(address);
    const uint64_t bytes = std::min(entry.bytes, left);
    left -= bytes;
    items.add(Fields()
                  .add("iov_base", bytes_text(memory, entry.base, bytes, options))
                  .add("iov_len", number_text(entry.bytes))
                  .finish());
  }
  return items.finish();
}

struct KernelMsghdr {
  uint64_t name;
  uint32_t name_bytes, padding;
  uint64_t iovecs, iovec_count, control, control_bytes;
  uint32_t flags, padding_behind;
};
static_assert(sizeof(KernelMsghdr) == 56);

/// A msghdr; one that was received (`filled` bytes of data) has flags, one to be sent has not.
std::string message_text(GuestMemory& memory, uint64_t address, int64_t filled,
                         const DecodeOptions& options) {
  KernelMsghdr header;
  if (address == 0 || !memory.read(address, &header, sizeof(header))) return address_text(address);
  Fields fields;
  const auto name = copy_of(memory, header.name, header.name_bytes, 128);
  fields.add("msg_name", name.empty() ? address_text(header.name) : sockaddr_text(name.data(), name.size()));
  fields.add("msg_namelen", std::to_string(static_cast<int32_t>(header.name_bytes)));
  fields.add("msg_iov", iovec_text(memory, header.iovecs, header.iovec_count, filled, options));
  fields.add("msg_iovlen", number_text(header.iovec_count));
  const auto control = copy_of(memory, header.control, header.control_bytes, kMaxStructBytes);
  if (!control.empty()) fields.add("msg_control", control_text(control.data(), control.size(), options));
  fields.add("msg_controllen", number_text(header.control_bytes));
  if (filled != kSent) fields.add("msg_flags", format_flags("msg_flags", header.flags));
  return fields.finish();
}

std::string messages_text(GuestMemory& memory, uint64_t address, uint64_t count, bool received,
                          const DecodeOptions& options) {
  constexpr uint64_t kStep = 64, kLengthAt = 56;
  if (address == 0) return "NULL";
  Items items(options.array_items);
  for (uint64_t i = 0; i < count && items.has_room(); ++i) {
    uint32_t bytes = 0;
    if (!memory.read(address + i * kStep + kLengthAt, &bytes, sizeof(bytes))) return address_text(address);
    const int64_t filled = received ? bytes : kSent;
    items.add(Fields()
                  .add("msg_hdr", message_text(memory, address + i * kStep, filled, options))
                  .add("msg_len", std::to_string(bytes))
                  .finish());
  }
  return items.finish();
}

/// Commands have their names in the table, with the rows that they choose.
std::optional<std::string> command_name(const SyscallRow& row, const Arg& arg, uint64_t value,
                                        const std::array<uint64_t, 6>& args) {
  const bool is_option = arg.name == "optname";
  static constexpr std::string_view kCommands[] = {"fcntl_cmd", "ioctl_cmd", "prctl_option",
                                                   "arch_prctl_code", "ipc_cmd"};
  if (!is_option && std::find(std::begin(kCommands), std::end(kCommands), arg.decode) == std::end(kCommands))
    return std::nullopt;
  for (const CommandRow& command : command_table(row.number)) {
    if (is_option && command.level != static_cast<uint32_t>(args[1])) continue;
    if (command.command == static_cast<uint32_t>(value)) return std::string(command.command_name);
  }
  return std::nullopt;
}

std::string plain_text(const SyscallRow& row, const Arg& arg, uint64_t value,
                       const std::array<uint64_t, 6>& args) {
  if (auto name = command_name(row, arg, value, args)) return *name;
  switch (arg.kind) {
    case ArgKind::kFd:
    case ArgKind::kPid:
      return std::to_string(static_cast<int32_t>(value));
    case ArgKind::kDirFd:
      return static_cast<int32_t>(value) == AT_FDCWD ? "AT_FDCWD"
                                                     : std::to_string(static_cast<int32_t>(value));
    case ArgKind::kSignal:
      return signal_name(static_cast<int32_t>(value));
    case ArgKind::kHex:
      if (is_flags_name(arg.decode)) return format_flags(arg.decode, value);
      if (value == 0) return arg.name.find("addr") == std::string_view::npos ? "0" : "NULL";
      return fmt::format("{:#x}", value);
    case ArgKind::kLocalPointer:
      return address_text(value);
    default:
      return is_flags_name(arg.decode) ? format_flags(arg.decode, value) : number_text(value);
  }
}

/// open's mode means something only if it may create.
bool is_left_out(const SyscallRow& row, size_t index, const std::array<uint64_t, 6>& args) {
  constexpr uint64_t kCreates = O_CREAT | (O_TMPFILE & ~O_DIRECTORY);
  return index > 0 && row.args[index].decode == "mode" && row.args[index - 1].decode == "open_flags" &&
         (args[index - 1] & kCreates) == 0;
}

/// Bytes of a buffer as far as they are known before the call.
uint64_t bytes_before(const Arg& arg, const std::array<uint64_t, 6>& args, uint32_t capacity) {
  switch (arg.size.kind) {
    case SizeKind::kConst:
      return arg.size.bytes;
    case SizeKind::kArg:
    case SizeKind::kArgResult:
      return arg.size.head + std::min<uint64_t>(args[arg.size.arg], UINT32_MAX) * arg.size.bytes;
    case SizeKind::kLengthAt:
      return capacity;
    case SizeKind::kCountInside:
      return arg.size.head;
    case SizeKind::kFdSet:
      return (std::min<uint64_t>(static_cast<uint32_t>(args[arg.size.arg]), 1 << 16) + 7) / 8;
    default:
      return 0;
  }
}

/// The half of `before => after` that differs: `[128 => 16]` for single numbers.
std::string change_text(const std::string& before, const std::string& after) {
  if (before == after || !before.starts_with('[') || !after.starts_with('[')) return after;
  return before.substr(0, before.size() - 1) + " => " + after.substr(1);
}

}  // namespace

std::string quoted(const void* data, size_t bytes, size_t limit, bool is_cut) {
  const auto* at = static_cast<const uint8_t*>(data);
  std::string text = "\"";
  for (size_t i = 0; i < std::min(bytes, limit); ++i) {
    static constexpr std::string_view kNamed = "\"\\\n\t\r\v\f", kLetters = "\"\\ntrvf";
    const uint8_t byte = at[i];
    const size_t named = kNamed.find(static_cast<char>(byte));
    if (named != std::string_view::npos) {
      text += {'\\', kLetters[named]};
    } else if (byte >= ' ' && byte < 0x7f) {
      text += static_cast<char>(byte);
    } else {
      // Three digits where another digit follows that could be taken for part of the number.
      const bool digit_follows = i + 1 < bytes && at[i + 1] >= '0' && at[i + 1] <= '9';
      text += digit_follows ? fmt::format("\\{:03o}", byte) : fmt::format("\\{:o}", byte);
    }
  }
  return text + (is_cut || bytes > limit ? "\"..." : "\"");
}

std::string address_text(uint64_t address) { return address == 0 ? "NULL" : fmt::format("{:#x}", address); }

std::string number_text(uint64_t value) {
  constexpr uint64_t kSmallestInt = 0xffff'f000;  // -4096: no length or offset is likely to be just there
  if (value <= UINT32_MAX && value >= kSmallestInt) return std::to_string(static_cast<int32_t>(value));
  return std::to_string(static_cast<int64_t>(value));
}

bool is_known_decode(std::string_view name) {
  static constexpr std::string_view kCommands[] = {"fcntl_cmd", "ioctl_cmd", "prctl_option",
                                                   "arch_prctl_code", "ipc_cmd"};
  return is_flags_name(name) || is_struct_name(name) ||
         std::find(std::begin(kCommands), std::end(kCommands), name) != std::end(kCommands);
}

CallText::Shown CallText::how_shown(const Arg& arg, uint64_t value) const {
  if (value == 0) return Shown::kBefore;
  const bool fills = arg.direction == Direction::kOut || arg.direction == Direction::kInOut;
  switch (arg.kind) {
    case ArgKind::kIovec:
    case ArgKind::kMsghdr:
      return fills ? Shown::kAfter : Shown::kBefore;
    case ArgKind::kMmsghdr:
      return Shown::kAfter;
    case ArgKind::kBuffer:
      break;
    default:
      return Shown::kBefore;
  }
  if (!fills) return Shown::kBefore;
  // An update of which the program sets nothing, and lengths, which read best as `[128 => 16]`.
  const bool is_filled = arg.direction == Direction::kOut || arg.name == "rem" ||
                         arg.decode == "wait_status" || arg.decode == "rusage" || arg.decode == "siginfo" ||
                         arg.decode == "int" || arg.size.kind == SizeKind::kLengthAt ||
                         !is_struct_name(arg.decode);
  return is_filled ? Shown::kAfter : Shown::kBoth;
}

CallText::CallText(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory,
                   const DecodeOptions& options)
    : row_(&row), args_(args), options_(options) {
  while (count_ < args.size() && row.args[count_].kind != ArgKind::kNone && !is_left_out(row, count_, args))
    ++count_;
  for (size_t i = 0; i < count_; ++i) {
    const Arg& arg = row.args[i];
    const uint64_t value = args[i];
    if (arg.size.kind == SizeKind::kLengthAt) {
      uint32_t capacity = 0;
      if (memory.read(args[arg.size.arg], &capacity, sizeof(capacity))) capacities_[i] = capacity;
    }
    shown_[i] = how_shown(arg, value);
    switch (arg.kind) {
      case ArgKind::kString:
        before_[i] = string_text(memory, value, kPathBytes);
        break;
      case ArgKind::kStringArray:
        before_[i] = strings_text(arg, memory, value, options_);
        break;
      case ArgKind::kIovec:
        before_[i] = arg.direction == Direction::kIn
                         ? iovec_text(memory, value, args[arg.size.arg], kSent, options_)
                         : address_text(value);
        break;
      case ArgKind::kMsghdr:
        before_[i] = arg.direction == Direction::kIn ? message_text(memory, value, kSent, options_)
                                                     : address_text(value);
        break;
      case ArgKind::kMmsghdr:
        before_[i] = address_text(value);
        break;
      case ArgKind::kBuffer:
        before_[i] = arg.direction == Direction::kOut
                         ? address_text(value)
                         : buffer_text(arg, memory, value, bytes_before(arg, args, capacities_[i]), options_);
        break;
      default:
        before_[i] = plain_text(row, arg, value, args);
    }
  }
  begin_ = std::string(row.name) + "(";
  for (; begun_ < count_ && shown_[begun_] != Shown::kAfter; ++begun_)
    begin_ += (begun_ == 0 ? "" : ", ") + before_[begun_];
}

std::string CallText::before() const {
  std::string text = begin_;
  for (size_t i = begun_; i < count_; ++i) text += (i == 0 ? "" : ", ") + before_[i];
  return text;
}

std::string CallText::after(size_t index, int64_t result, GuestMemory& memory) const {
  const Arg& arg = row_->args[index];
  const uint64_t address = args_[index];
  const bool failed = result < 0;
  const bool was_interrupted = result == -EINTR || result == -kRestartBlock;
  // What the call has not touched is an address, as it was.
  bool is_filled = !failed;
  if (arg.name == "rem") is_filled = was_interrupted;
  if (row_->returns.starts_with("pid")) is_filled = result > 0;
  if (arg.kind == ArgKind::kMmsghdr && arg.direction == Direction::kIn) is_filled = true;
  if (!is_filled)
    return arg.decode == "int" && !before_[index].empty() ? before_[index] : address_text(address);

  uint64_t bytes = bytes_before(arg, args_, capacities_[index]);
  if (arg.size.kind == SizeKind::kArgResult)
    bytes = std::min(bytes, arg.size.head + static_cast<uint64_t>(result) * arg.size.bytes);
  if (arg.size.kind == SizeKind::kLengthAt) {
    uint32_t length = 0;
    if (!memory.read(args_[arg.size.arg], &length, sizeof(length))) return address_text(address);
    bytes = std::min<uint64_t>(length, bytes);
  }
  switch (arg.kind) {
    case ArgKind::kIovec:
      return iovec_text(memory, address, args_[arg.size.arg], result, options_);
    case ArgKind::kMsghdr:
      return message_text(memory, address, result, options_);
    case ArgKind::kMmsghdr: {
      const bool received = arg.direction != Direction::kIn;
      const uint64_t count =
          failed ? static_cast<uint32_t>(args_[arg.size.arg]) : static_cast<uint64_t>(result);
      return messages_text(memory, address, count, received, options_);
    }
    default:
      break;
  }
  const std::string text = buffer_text(arg, memory, address, bytes, options_);
  return arg.decode == "int" && arg.direction == Direction::kInOut ? change_text(before_[index], text) : text;
}

std::string CallText::changes(int64_t result, GuestMemory& memory) const {
  std::string text;
  for (size_t i = 0; i < count_; ++i) {
    const Arg& arg = row_->args[i];
    if (shown_[i] != Shown::kBoth || (is_error(result) && !arg.out_on_error)) continue;
    const std::string now =
        buffer_text(arg, memory, args_[i], bytes_before(arg, args_, capacities_[i]), options_);
    if (now == before_[i]) continue;
    text += text.empty() ? " (" : ", ";
    text += fmt::format("{}={}", arg.name, now);
  }
  return text.empty() ? text : text + ")";
}

std::string CallText::arguments(int64_t result, GuestMemory& memory) const {
  std::string text;
  for (size_t i = 0; i < count_; ++i) {
    text += i == 0 ? "" : ", ";
    text += shown_[i] == Shown::kAfter ? after(i, result, memory) : before_[i];
  }
  return text;
}

std::string CallText::finish(int64_t result, GuestMemory& memory) const {
  std::string text;
  for (size_t i = begun_; i < count_; ++i) {
    text += i == 0 ? "" : ", ";
    text += shown_[i] == Shown::kAfter ? after(i, result, memory) : before_[i];
  }
  return text + ") = " + format_result(*row_, result) + changes(result, memory);
}

std::string format_call(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory,
                        const DecodeOptions& options) {
  const CallText text(row, args, memory, options);
  return text.before() + ")";
}

std::string format_result(const SyscallRow& row, int64_t result) {
  constexpr int64_t kFirstRestart = 512, kLastRestart = 516;
  if (result <= -kFirstRestart && result >= -kLastRestart) {
    const int code = static_cast<int>(-result);
    return fmt::format("? {} ({})", errno_name(code), errno_text(code));
  }
  if (is_error(result)) {
    const int code = static_cast<int>(-result);
    return fmt::format("-1 {} ({})", errno_name(code), errno_text(code));
  }
  if (row.returns == "never") return "?";
  if (row.returns == "address") return fmt::format("{:#x}", static_cast<uint64_t>(result));
  if (row.returns == "previous mask") return fmt::format("0{:o}", static_cast<uint64_t>(result));
  return std::to_string(result);
}

}  // namespace mosix
