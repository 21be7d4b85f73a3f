// A write or send that was broken off away and goes on at home. Home's kernel knows nothing of the first part, so a
// few instructions in a mapping of their own make the call for the rest, add up, put back the registers that it
// needed and return to the program. Custodian only; the code runs in the program's thread.
#pragma once

#include <sys/user.h>

#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/process/memory.h"

namespace mosix {

struct RestOfWrite {
  std::vector<uint8_t> bytes;  ///< code and what the call needs of its own; to be mapped readable and executable
  user_regs_struct registers;  ///< for the thread, once they are mapped at `at`
};

/// How many bytes of mapping the rest of this call needs at most; a multiple of the page size.
uint64_t rest_of_write_bytes(const user_regs_struct& registers);

/// For a thread whose registers say that its call is made again, and which has given `done` bytes already. `memory`
/// is the process's, for the vectors of writev and sendmsg.
Result<RestOfWrite> rest_of_write(const user_regs_struct& registers, uint64_t done, uint64_t at,
                                  const ProcessMemory& memory);

}  // namespace mosix
