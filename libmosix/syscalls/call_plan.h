// From a trapped call to a CALL frame and back: the forwarder's two halves, computed from the table.
// Runs in the supervisor (backstop) and in tests; later in the fast path.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "libmosix/common/frame.h"
#include "libmosix/common/result.h"
#include "libmosix/syscalls/guest_memory.h"
#include "libmosix/syscalls/table.h"

namespace mosix {

/// Where an out region of the reply goes in the guest.
struct OutDestination {
  uint64_t address = 0;
  uint32_t max_bytes = 0;
};

/// A call made ready for its deputy.
struct CallPlan {
  CallBody body{};
  std::vector<Reloc> relocs;
  std::vector<OutRegion> outs;
  std::vector<OutDestination> destinations;  ///< one for each of outs
  std::vector<uint8_t> scratch;              ///< the in part, body.in_bytes long

  /// The frame's bytes after FrameHeader, in wire order, padded to 8.
  std::vector<uint8_t> frame_body() const;
};

/// Reads what the row says from the guest and lays out scratch. The error's code is the errno that Linux
/// gives the program: EFAULT for a bad pointer, EINVAL for a size beyond the kernel's own bound.
/// Lengths beyond what one call carries (kMaxScratchBytes) are cut for calls that may be partial.
Result<CallPlan> plan_call(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory);

/// What a REPLY frame says, checked against the plan.
struct CallReply {
  int64_t result = 0;
  Verdict verdict = Verdict::kDone;
  std::vector<Siginfo> signals;  ///< in the order in which they were taken at home
  uint32_t first_signal = 0;
  std::vector<std::vector<uint8_t>> outs;
};

/// Total: every count and length is checked against frame and plan. EBADMSG for anything that does not fit.
Result<CallReply> parse_reply(const CallPlan& plan, const uint8_t* body, size_t bytes);

/// Writes the out regions to the guest. EFAULT if a destination cannot be written (Linux: after the call's
/// effects have happened, the call fails with EFAULT).
Status deliver_outs(const CallPlan& plan, const CallReply& reply, GuestMemory& memory);

}  // namespace mosix
