// Frames of a channel: what a guest thread (or the supervisor on its behalf) and its own deputy thread say
// to each other. Plain structs for the little-endian x86-64 on both ends, because one end is the agent:
// no libc, no allocation. Included by the agent, so nothing from the standard library but <stdint.h>.
//
// One call is one frame out and one frame back. The away side computes from the system-call table where
// each pointer argument lies; the deputy interprets that plan and knows no system call by name:
//
//   CallBody | Reloc[reloc_count] | OutRegion[out_count] | in_bytes of scratch
//
// The deputy lays out `scratch_bytes` of memory, the first in_bytes filled from the frame, the rest zero;
// adds the scratch address to each argument in arg_relocs; for each Reloc stores scratch+target at
// scratch+at (iovecs, msghdrs, argument vectors); executes; and answers
//
//   ReplyBody | uint32_t out_length[out_count], padded to 8 | the out regions' bytes, without gaps, padded
//   to 8 at their end | Siginfo[signal_count]
//
// Signals that the deputy thread took from home's kernel travel in replies, or, while the guest computes,
// in a SIGNAL frame. Each is numbered; a call names the last number that its thread has been given
// (signals_acked), and a deputy that has sent later ones does not execute the call but answers
// kVerdictRestart: the guest runs its handlers and makes the call again, exactly as a native thread would.
#pragma once

#include <stdint.h>

namespace mosix {

enum class FrameType : uint16_t {
  kHello = 1,    ///< deputy -> away: HelloBody, first on every connection
  kWelcome = 2,  ///< away -> deputy: the connection is the thread's channel from now on; signals_acked counts
  kCall = 3,     ///< away -> deputy: CallBody; answered by kReply
  kReply = 4,    ///< deputy -> away
  kSignal = 5,   ///< deputy -> away, unasked, only while no call is in flight: Siginfo, one
  kClone = 6,    ///< away -> deputy: CloneBody; answered by kReply, result is the home tid or -errno
  kExit = 7,     ///< away -> deputy: ExitBody; not answered, the connection ends
  /// Away -> deputy: ReleaseRange[]: home's copy of the guest's memory is not needed; -> kReply
  kRelease = 10,
  kImage = 9,  ///< supervisor -> supervisor: HelloBody; control messages with a process image follow
  kHear = 11,  ///< away -> deputy: nothing to do; answered by kReply with the signals that wait
  kDie = 8,    ///< away -> deputy: ExitBody.status is the signal of which the guest died; not answered
};

/// Head of every frame, 48 bytes. Frames are multiples of 8 bytes long.
struct FrameHeader {
  uint32_t length;         ///< bytes after this header
  uint16_t type;           ///< FrameType
  uint16_t key_epoch;      ///< room for encryption; 0: in clear
  uint32_t epoch;          ///< of the move that this connection belongs to
  uint32_t sequence;       ///< of the call; a reply repeats it
  uint32_t signals_acked;  ///< away -> deputy: number of the last signal given to the guest thread
  uint32_t reserved;
  uint64_t nonce;
  uint8_t tag[16];
};
static_assert(sizeof(FrameHeader) == 48);

struct HelloBody {
  uint8_t token[16];  ///< from the supervisor, by way of the custodian; good for this thread and epoch
  int32_t pid;
  int32_t tid;
};
static_assert(sizeof(HelloBody) == 24);

struct CallBody {
  uint32_t number;
  uint32_t arg_relocs;  ///< bit i: args[i] is an offset into scratch, not a value
  uint64_t args[6];
  uint32_t reloc_count;
  uint32_t out_count;
  uint32_t in_bytes;
  uint32_t scratch_bytes;  ///< at least in_bytes; multiple of 16
  uint32_t reserved;       ///< 0
  /// Bytes that a call which gives bytes away is to move; 0 for all others. If it moves some but not all of them
  /// and no signal has come, it has been broken off: the reply is a restart that names what was moved.
  uint32_t wanted_bytes;
};
static_assert(sizeof(CallBody) == 80);

struct Reloc {
  uint32_t at;      ///< offset in scratch of a 64-bit pointer to be written
  uint32_t target;  ///< offset in scratch that it shall point to
};

enum class OutRule : uint16_t {
  kFixed = 1,     ///< max_bytes if the call succeeded
  kAlways = 2,    ///< max_bytes, also after an error (remaining time, poll's revents)
  kResult = 3,    ///< result * param bytes, at most max_bytes
  kLength32 = 4,  ///< as the u32 at scratch+param says after the call, at most max_bytes
  kLength64 = 5,  ///< likewise, u64
  kSpread = 6,    ///< what is left of the result after the kSpread regions before this one
};

/// Regions ascend and do not overlap, so that a reply can gather them in place.
struct OutRegion {
  uint32_t offset;  ///< in scratch
  uint32_t max_bytes;
  uint16_t rule;  ///< OutRule
  uint16_t reserved;
  uint32_t param;
};
static_assert(sizeof(OutRegion) == 16);

enum class Verdict : uint32_t {
  kDone = 0,  ///< executed; result is what the kernel returned
  /// Not executed, or stopped inside home's kernel. `result` is the kernel's own restart code: -ERESTARTNOINTR
  /// (-513) if nothing was executed; -512, -514 or -516 from an aborted call, the last of which left its
  /// deadline in the deputy thread's restart block: it goes on with restart_syscall.
  kRestart = 1,
};

struct ReplyBody {
  int64_t result;
  uint32_t verdict;       ///< Verdict
  uint16_t out_count;     ///< 0 if the call failed in a way that leaves nothing to copy
  uint16_t signal_count;  ///< Siginfo records at the end, in the order in which handlers ran at home
  uint32_t first_signal;  ///< number of the first of them
  /// With kRestart: of CallBody::wanted_bytes. With kDone: 1 if the call has opened a file of procfs
  uint32_t moved_bytes;
};
static_assert(sizeof(ReplyBody) == 24);

/// The kernel's siginfo_t, 128 bytes, as a signal handler got it.
struct Siginfo {
  uint8_t bytes[128];
};

struct CloneBody {
  uint64_t flags;  ///< of clone(2), the exit signal in the low byte; the stack is the agent's
  int32_t slot;    ///< agent slot of the new thread; for a fork, of the child's only thread
  uint32_t child_epoch;
  uint8_t token[16];  ///< for the child's hello
};

struct ReleaseRange {
  uint64_t address;
  uint64_t bytes;
};

struct ExitBody {
  int32_t status;
  uint32_t whole_group;  ///< 1: exit_group
};

/// Most bytes that one forwarded call may carry in scratch; longer reads and writes are partial.
inline constexpr uint32_t kMaxScratchBytes = 32u << 20;
/// One for each word of argv and envp; the process comes home for an exec with more.
inline constexpr uint32_t kMaxRelocs = 65536;
inline constexpr uint32_t kMaxOutRegions = 1100;  ///< IOV_MAX, and a few
inline constexpr uint32_t kMaxSignalsPerReply = 32;

}  // namespace mosix
