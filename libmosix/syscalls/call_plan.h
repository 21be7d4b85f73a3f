// From a trapped call to a CALL frame and back: the forwarder's two halves, computed from the table.
// Runs in the supervisor (backstop) and in tests; later in the fast path.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "libmosix/common/frame.h"
#include "libmosix/common/result.h"
#include "libmosix/syscalls/guest_memory.h"
#include "libmosix/syscalls/table.h"

namespace mosix {

/// plan_call's errno for "one frame cannot carry this call": the process comes home and makes it there.
inline constexpr int kCannotCarry = EOVERFLOW;

/// A pointer to where no process has memory, in the first page. It stands in for the guest's bad pointers, so
/// that home's kernel makes its checks in its own order: read(-1, bad, 9) is EBADF, read(0, bad, 9) EFAULT.
inline constexpr uint64_t kBadPointer = 256;

/// Where an out region of the reply goes in the guest.
struct OutDestination {
  uint64_t address = 0;
  uint32_t max_bytes = 0;
  /// 0: all bytes are written. Otherwise only units of so many bytes that differ from what was sent: memory
  /// that the kernel would leave alone (events beside revents, a length behind a null address) stays alone.
  uint16_t unit_bytes = 0;
  bool control_messages = false;     ///< what lies between them (CMSG_ALIGN) stays alone
  bool may_fault = false;            ///< Linux ignores a fault here (what is left of select's timeout)
  int64_t result_above = INT64_MIN;  ///< only if the result is greater (message i of recvmmsg)
  uint32_t first_segment = 0;        ///< in CallPlan::segments; with segment_count 0 `address` is all
  uint32_t segment_count = 0;
};

/// A piece of an out region with a destination of its own: fields between pointers, a scattered message.
struct OutSegment {
  uint32_t region_offset = 0;
  uint32_t bytes = 0;
  uint64_t address = 0;
};

/// A call made ready for its deputy.
struct CallPlan {
  CallBody body{};
  std::vector<Reloc> relocs;
  std::vector<OutRegion> outs;
  std::vector<OutDestination> destinations;  ///< one for each of outs
  std::vector<OutSegment> segments;
  std::vector<uint8_t> scratch;  ///< the in part, body.in_bytes long

  /// The frame's bytes after FrameHeader, in wire order, padded to 8.
  std::vector<uint8_t> frame_body() const;
};

/// Reads what the row says from the guest and lays out scratch: in parts first, then what the call fills.
/// Bad pointers and sizes that no kernel accepts are not errors here: they go home as pointers that are bad
/// there too, and with the program's own numbers, and home's kernel answers. Lengths beyond what one call
/// carries (kMaxScratchBytes) are cut for calls that may be partial; anything else too large, and a row that
/// is not kHome or kSplit, fails with kCannotCarry, the only error: bring the process home.
///
/// Buffers of whole sectors at whole sectors (O_DIRECT) keep their alignment as offsets in scratch, up to a
/// page, and then the in part is one of whole sectors: by that a deputy knows to put scratch at a page.
Result<CallPlan> plan_call(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory);

/// What a REPLY frame says, checked against the plan.
struct CallReply {
  int64_t result = 0;
  Verdict verdict = Verdict::kDone;
  std::vector<Siginfo> signals;  ///< in the order in which they were taken at home
  uint32_t first_signal = 0;
  uint32_t moved_bytes = 0;     ///< with kRestart: the call was broken off after so many
  bool opened_in_proc = false;  ///< the result is a descriptor of a file of procfs
  std::vector<std::vector<uint8_t>> outs;
};

/// The struct that a call with one out region has filled. False if it failed, or filled less or more.
template <class T>
bool take_out(const CallReply& reply, T* value) {
  if (reply.result != 0 || reply.outs.empty() || reply.outs[0].size() != sizeof *value) return false;
  memcpy(value, reply.outs[0].data(), sizeof *value);
  return true;
}

/// `body` is what follows the FrameHeader. The out regions' bytes follow one another without gaps and are
/// padded together to 8 before the signals. A region that the call did not fill has length 0.
/// Total: every count and length is checked against frame and plan. EBADMSG for anything that does not fit.
Result<CallReply> parse_reply(const CallPlan& plan, const uint8_t* body, size_t bytes);

/// Writes the out regions to the guest. EFAULT if a destination cannot be written (Linux: after the call's
/// effects have happened, the call fails with EFAULT).
Status deliver_outs(const CallPlan& plan, const CallReply& reply, GuestMemory& memory);

}  // namespace mosix
