// Calls that may be broken off in the middle: write(2) into a pipe that is full, send(2) to a peer that is slow, and
// recv(2) that waits for all (MSG_WAITALL). Natively only a signal does that; a move does it too, and no program may
// notice. So the call is gone on with behind what has been given or received already, and the program gets the sum.
// Used by the supervisor (a guest's calls) and the custodian (a process that is just leaving home).
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/syscalls/guest_memory.h"

namespace mosix {

/// How many bytes the call is to give away; 0 for a call that is none of these, or whose arguments no kernel takes.
uint64_t bytes_to_give(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory);

/// What is left of such a call: one that gives `data` to args[0] in its place.
struct RestOfCall {
  uint32_t number = 0;
  std::array<uint64_t, 6> args{};  ///< args[1] is for the data's place, args[2] their size
  std::vector<uint8_t> data;
};
/// From byte `done` on, at most `most` bytes. EFAULT: what is left cannot be read.
Result<RestOfCall> rest_of_call(uint64_t number, const std::array<uint64_t, 6>& args, uint64_t done,
                                uint64_t most, GuestMemory& memory);

/// How many bytes a receive waits for; 0 for one that takes what there is, and for all other calls. Whether its socket
/// is a stream, where alone waiting for all means something, the arguments do not tell.
uint64_t bytes_to_receive(uint64_t number, const std::array<uint64_t, 6>& args, GuestMemory& memory);
/// Where they go from byte `done` on, at most `most` of them.
std::vector<iovec> rest_of_receive(uint64_t number, const std::array<uint64_t, 6>& args, uint64_t done,
                                   uint64_t most, GuestMemory& memory);
/// The flags of such a receive.
uint64_t receive_flags(uint64_t number, const std::array<uint64_t, 6>& args);

}  // namespace mosix
