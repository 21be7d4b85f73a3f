// The words in which rows of the system-call table are written (rows_*.inc, command_*.cc). Each is a constant
// expression that makes one Arg or one row; what a row says is checked when table.cc is compiled.
//
//   MOSIX_CALL(read).with(fd(), out("buf", upto(2)), value("count")).home("bytes", kMayBlock | kMayBePartial)
//
// Directions, as the kernel has them and not as man pages tell them:
//   in      the kernel reads all of it
//   out     the kernel fills all of it whenever the call succeeds, and leaves it alone when it fails
//   update  the kernel reads it, or may fill a part of it only: goes there and comes back on success
//   always  like update, and comes back after an error too (what is left of a timeout, poll's revents)
// A buffer that is only sometimes written (wait4's status when no child has changed) is an `update`, because
// an `out` would put zeroes where Linux would have left the program's bytes.
#pragma once

#include "libmosix/syscalls/table.h"

namespace mosix::row_words {

// ---- sizes ----------------------------------------------------------------------------------------------

/// A structure of so many bytes.
constexpr ArgSize bytes(size_t count) { return {SizeKind::kConst, 0, static_cast<uint32_t>(count)}; }
/// As many as argument `arg` says, in units of `unit` bytes.
constexpr ArgSize counted(uint8_t arg, size_t unit = 1) {
  return {SizeKind::kArg, arg, static_cast<uint32_t>(unit)};
}
/// Room for as many as argument `arg` says; the result says how many there are.
constexpr ArgSize upto(uint8_t arg, size_t unit = 1) {
  return {SizeKind::kArgResult, arg, static_cast<uint32_t>(unit)};
}
/// The u32 behind argument `arg`: room before the call, length after it.
constexpr ArgSize length_at(uint8_t arg) { return {SizeKind::kLengthAt, arg, 1}; }
/// A set of bits in whole 64-bit words, argument `arg` bits wide.
constexpr ArgSize bit_set(uint8_t arg) { return {SizeKind::kFdSet, arg, 1}; }
/// A head of so many bytes, and behind it as many units as its u32 at `offset` says.
constexpr ArgSize counted_inside(uint8_t offset, size_t head, size_t unit) {
  return {SizeKind::kCountInside, offset, static_cast<uint32_t>(unit), static_cast<uint32_t>(head)};
}
/// `size` with `count` bytes in front that are there in any case (the type of a System V message).
constexpr ArgSize headed(size_t count, ArgSize size) {
  size.head = static_cast<uint32_t>(count);
  return size;
}

// ---- arguments ------------------------------------------------------------------------------------------

constexpr Arg plain(std::string_view name, ArgKind kind, std::string_view decode = {}) {
  return {.name = name, .kind = kind, .decode = decode};
}
constexpr Arg value(std::string_view name, std::string_view decode = {}) {
  return plain(name, ArgKind::kValue, decode);
}
constexpr Arg hex(std::string_view name, std::string_view decode = {}) {
  return plain(name, ArgKind::kHex, decode);
}
constexpr Arg fd(std::string_view name = "fd") { return plain(name, ArgKind::kFd); }
constexpr Arg dir_fd(std::string_view name = "dirfd") { return plain(name, ArgKind::kDirFd); }
constexpr Arg pid(std::string_view name = "pid") { return plain(name, ArgKind::kPid); }
constexpr Arg signal(std::string_view name = "sig") { return plain(name, ArgKind::kSignal, "signal"); }
constexpr Arg mode(std::string_view name = "mode") { return plain(name, ArgKind::kValue, "mode"); }

/// A pointer of a call that runs on the node where the guest is (or that brings it home): nobody follows it.
constexpr Arg local(std::string_view name, std::string_view decode = {}) {
  return plain(name, ArgKind::kLocalPointer, decode);
}

/// A path or another name, read to its zero byte.
constexpr Arg string(std::string_view name) {
  return {.name = name, .kind = ArgKind::kString, .direction = Direction::kIn};
}
/// A string of which the kernel reads `most` bytes at the most; a longer one is cut, as the kernel does.
constexpr Arg short_string(std::string_view name, size_t most) {
  return {.name = name, .kind = ArgKind::kString, .direction = Direction::kIn, .size = bytes(most)};
}
constexpr Arg path(std::string_view name = "pathname") { return string(name); }
/// argv, envp.
constexpr Arg strings(std::string_view name) {
  return {.name = name, .kind = ArgKind::kStringArray, .direction = Direction::kIn};
}

constexpr Arg buffer(std::string_view name, Direction direction, ArgSize size, std::string_view decode) {
  return {.name = name, .kind = ArgKind::kBuffer, .direction = direction, .size = size, .decode = decode};
}
constexpr Arg in(std::string_view name, ArgSize size, std::string_view decode = {}) {
  return buffer(name, Direction::kIn, size, decode);
}
constexpr Arg out(std::string_view name, ArgSize size, std::string_view decode = {}) {
  return buffer(name, Direction::kOut, size, decode);
}
constexpr Arg update(std::string_view name, ArgSize size, std::string_view decode = {}) {
  return buffer(name, Direction::kInOut, size, decode);
}
constexpr Arg always(std::string_view name, ArgSize size, std::string_view decode = {}) {
  Arg arg = buffer(name, Direction::kInOut, size, decode);
  arg.out_on_error = true;
  return arg;
}

/// An array of iovec, as many as argument `count` says, whose memory is read (kIn) or filled in order (kOut).
constexpr Arg iovec(std::string_view name, Direction direction, uint8_t count) {
  return {.name = name, .kind = ArgKind::kIovec, .direction = direction, .size = counted(count)};
}
constexpr Arg msghdr(std::string_view name, Direction direction) {
  return {.name = name, .kind = ArgKind::kMsghdr, .direction = direction};
}
constexpr Arg mmsghdr(std::string_view name, Direction direction, uint8_t count) {
  return {.name = name, .kind = ArgKind::kMmsghdr, .direction = direction, .size = counted(count)};
}

// ---- rows -----------------------------------------------------------------------------------------------

/// A row in the making: number and name first, then its arguments, then where it runs.
struct Row {
  SyscallRow row;

  template <class... Args>
  constexpr Row with(const Args&... args) const {
    static_assert(sizeof...(Args) <= 6);
    Row next = *this;
    size_t at = 0;
    ((next.row.args[at++] = args), ...);
    return next;
  }

  /// Forwarded, and its arguments say all that there is to know.
  constexpr SyscallRow home(std::string_view returns, uint32_t effects = 0,
                            std::string_view note = {}) const {
    return finish(Where::kHome, returns, effects, note);
  }
  /// Made on the node where the guest is, without being noticed.
  constexpr SyscallRow here(std::string_view returns, uint32_t effects = 0,
                            std::string_view note = {}) const {
    return finish(Where::kHere, returns, effects, note);
  }
  /// Both sides take part; the supervisor's code for `handler` knows how.
  constexpr SyscallRow split(Split handler, std::string_view returns, uint32_t effects = 0,
                             std::string_view note = {}) const {
    SyscallRow next = finish(Where::kSplit, returns, effects, note);
    next.split = handler;
    return next;
  }
  /// The process comes home and makes the call there; `note` is the reason that a user reads.
  constexpr SyscallRow bring_home(std::string_view note, std::string_view returns = "0") const {
    return finish(Where::kBringHome, returns, 0, note);
  }
  /// Answered with an errno, on the spot.
  constexpr SyscallRow refuse(int refusal, std::string_view note) const {
    SyscallRow next = finish(Where::kRefuse, "-", 0, note);
    next.refusal = refusal;
    return next;
  }

 private:
  constexpr SyscallRow finish(Where where, std::string_view returns, uint32_t effects,
                              std::string_view note) const {
    SyscallRow next = row;
    next.where = where;
    next.returns = returns;
    next.effects = effects;
    next.note = note;
    return next;
  }
};

constexpr Row call(int number, std::string_view name) {
  Row start;
  start.row.number = number;
  start.row.name = name;
  return start;
}

}  // namespace mosix::row_words

/// A call by its name in the kernel's header, or in arch/x86_64/syscall_numbers.h.
#define MOSIX_CALL(name) ::mosix::row_words::call(__NR_##name, #name)
