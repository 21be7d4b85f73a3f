// The one table of system calls: numbers, arguments with direction and size, where each runs, its effects.
// Read by forwarder (call_plan.h), seccomp filter builder, tracer, documentation and tests.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "libmosix/common/result.h"
#include "libmosix/syscalls/guest_memory.h"

namespace mosix {

/// Where a call runs while its process is away.
enum class Where : uint8_t {
  kHere,       ///< natively, on the away node, never noticed
  kHome,       ///< forwarded as the row's arguments say; needs no code of its own
  kSplit,      ///< both sides take part: `handler` names the code
  kBringHome,  ///< the process comes home and makes the call natively
  kRefuse,     ///< answered with `refusal`, an errno
};

/// Effects, as bits.
enum Effect : uint32_t {
  kMayBlock = 1 << 0,
  kAddsFd = 1 << 1,
  kRemovesFd = 1 << 2,
  kChangesMaps = 1 << 3,
  kChangesMask = 1 << 4,   ///< takes a signal mask for the time of the call (ppoll, sigsuspend)
  kPure = 1 << 5,          ///< the answer cannot change while the process runs
  kMayBePartial = 1 << 6,  ///< a shorter transfer than asked for is a legal answer
  kTimed = 1 << 7,         ///< has a relative timeout
};

/// Split calls, each with its handler in the supervisor.
enum class Split : uint8_t {
  kNone,
  kMmap,
  kClone,
  kFork,
  kVfork,
  kClone3,
  kExecve,
  kExecveat,
  kExit,
  kExitGroup,
  kSigaction,
  kSigprocmask,
  kSigreturn,
  kSigsuspend,
  kTimedMask,
  kItimer,
  kTimes,
  kWait,
  kRestart,
  kRlimit,
  kPrctl,
  kMemory,
  kLock,
  kProtectionKey,
};

enum class ArgKind : uint8_t {
  kNone,
  kValue,  ///< a number
  kHex,    ///< flags or an address that is never dereferenced
  kFd,     ///< a home descriptor
  kDirFd,  ///< a home descriptor or AT_FDCWD
  kPid,
  kSignal,
  kString,       ///< in: path or name, zero-terminated
  kBuffer,       ///< pointer to bytes; direction and size say more
  kStringArray,  ///< in: argv, envp
  kIovec,        ///< array of iovec, count in argument `size.arg`; direction of what they point to
  kMsghdr,       ///< sendmsg, recvmsg
  kMmsghdr,
  kLocalPointer,  ///< pointer for calls that run here; never followed by us
};

enum class Direction : uint8_t { kNone, kIn, kOut, kInOut };

/// How many bytes a kBuffer has.
enum class SizeKind : uint8_t {
  kNone,
  kConst,        ///< `bytes`
  kArg,          ///< value of argument `arg`, times `bytes`
  kArgResult,    ///< at most arg * bytes before the call; result * bytes after it
  kLengthAt,     ///< u32 behind the pointer in argument `arg`: capacity before, true length after (sockets)
  kFdSet,        ///< select: argument `arg` is nfds
  kCountInside,  ///< the buffer's own u32 at `arg` says how many units of `bytes` follow its `head`
};

struct ArgSize {
  SizeKind kind = SizeKind::kNone;
  uint8_t arg = 0;
  uint32_t bytes = 1;
  /// Bytes in front of the counted ones, there before and after the call (the type of a System V message).
  uint32_t head = 0;
};

struct Arg {
  std::string_view name;
  ArgKind kind = ArgKind::kNone;
  Direction direction = Direction::kNone;
  ArgSize size{};
  bool nullable = true;
  /// kAlways semantics: copied out also when the call fails (poll's revents, nanosleep's rest).
  bool out_on_error = false;
  /// Name of the flag set or structure for decoding ("open_flags", "stat", "sockaddr"); may be empty.
  std::string_view decode;
};

struct SyscallRow {
  int number = -1;
  std::string_view name;
  std::array<Arg, 6> args{};
  Where where = Where::kBringHome;
  uint32_t effects = 0;
  Split split = Split::kNone;
  int refusal = 0;           ///< errno for kRefuse
  std::string_view returns;  ///< "bytes", "new fd", "pid", "address", "0"
  std::string_view note;
};

/// Every x86-64 call up to Linux 6.18, sorted by number, holes included as rows named "unused_N".
std::span<const SyscallRow> syscall_table();

/// The row of a call; numbers without one get a kBringHome row named "unknown".
const SyscallRow& syscall_row(uint64_t number);

/// The row for these arguments: ioctl, fcntl, prctl, setsockopt, getsockopt have rows per command.
const SyscallRow& syscall_row(uint64_t number, const std::array<uint64_t, 6>& args);

/// All command rows of a multiplexed call, for documentation and tests: (command, row) in order.
struct CommandRow {
  uint32_t level = 0;  ///< sockopts: level; otherwise 0
  uint32_t command = 0;
  std::string_view command_name;
  SyscallRow row;
};
std::span<const CommandRow> command_table(int number);

/// Which argument of a multiplexed call names its command (1 for ioctl, 2 for socket options, whose level is
/// argument 1); -1 for a call without rows per command.
int command_argument(int number);

}  // namespace mosix
