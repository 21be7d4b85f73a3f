// Calls that go on at home where they were left away: a write that was broken off in its middle, a wait of which
// only a part is left. Home's kernel knows nothing of the first part, so a few instructions in a mapping of their own
// make the call for the rest, mend its result, put back the registers that it needed and return to the program.
// Custodian only; the code runs in the program's thread.
#pragma once

#include <sys/user.h>

#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/process/memory.h"

namespace mosix {

struct ResumedCall {
  std::vector<uint8_t> bytes;  ///< code and what the call needs of its own; to be mapped readable and executable
  user_regs_struct registers;  ///< for the thread, once they are mapped at `at`
};

/// How many bytes of mapping such a call needs at most.
uint64_t resumed_call_bytes(const user_regs_struct& registers);

/// For a thread whose registers say that its call is made again, and which has given `done` bytes already. `memory`
/// is the process's, for the vectors of writev and sendmsg.
Result<ResumedCall> rest_of_write(const user_regs_struct& registers, uint64_t done, uint64_t at,
                                  const ProcessMemory& memory);

/// For one whose time limit is in a register (poll, epoll_wait): only what is left of it. Its result is its own.
ResumedCall rest_of_wait(const user_regs_struct& registers, int64_t left_ns, uint64_t at);
/// Has the limit in a register.
bool waits_by_register(uint64_t number);
/// Where select and its like have their limit, and the kernel itself writes what is left when they are interrupted;
/// 0 for all others. `*timeval`: it is a struct timeval, and not a timespec.
uint64_t limit_address(const user_regs_struct& registers, bool* timeval);

}  // namespace mosix
