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
  /// Code and what the call needs of its own; to be mapped readable and executable
  std::vector<uint8_t> bytes;
  user_regs_struct registers;  ///< for the thread, once they are mapped at `at`
  uint64_t data_at = 0;        ///< on the thread's stack, below what it may use: what the kernel writes to
  std::vector<uint8_t> data;
};

/// One that a process makes, or has made, since it came home: if it leaves again before the call has ended, the call
/// is the program's own once more.
struct CallAtHome {
  uint64_t at = 0;  ///< of its mapping
  user_regs_struct original{};
  uint64_t done = 0;
  int64_t deadline_ns = 0;
  uint64_t number = 0;  ///< of what is made in the program's place

  bool contains(const user_regs_struct& registers) const;
};
/// What threads may be in since their process came home last.
struct CallsSinceHome {
  std::vector<CallAtHome> own;
  std::vector<user_regs_struct> sleeps;  ///< which go on by restart_syscall, with the number of the sleep
};
/// Two looks at a call that a thread has not left in between, or at one that is made alike.
bool same_call(const user_regs_struct& a, const user_regs_struct& b);
/// For a thread that was interrupted in such a call: its registers as if it had made its own; what it was.
const CallAtHome* own_call_of(const std::vector<CallAtHome>& calls, user_regs_struct& registers);

/// How many bytes of mapping such a call needs at most, and how it is to be mapped: a message's header the kernel
/// writes to when it has received.
uint64_t resumed_call_bytes(const user_regs_struct& registers);
uint64_t resumed_call_protection(const user_regs_struct& registers);

/// For a thread whose registers say that its call is made again, and which has given `done` bytes already, or received
/// them (MSG_WAITALL). `memory` is the process's, for the vectors of writev, sendmsg and recvmsg.
Result<ResumedCall> rest_of_transfer(const user_regs_struct& registers, uint64_t done, uint64_t at,
                                     const ProcessMemory& memory);

/// For one whose time limit the kernel does not count down in the program's memory (poll, epoll_wait and others): only
/// what is left of it. Its result is its own.
ResumedCall rest_of_wait(const user_regs_struct& registers, int64_t left_ns, uint64_t at);
bool waits_with_own_limit(uint64_t number);
/// For one whose limit no argument names (a read from a socket with SO_RCVTIMEO, from a terminal with VTIME): waits by
/// ppoll for what is left of it, then has the program make its call. `out_of_time`: the call's result if nothing
/// comes; if that is an error, an interruption is one too (EINTR).
ResumedCall rest_of_read(const user_regs_struct& registers, int64_t left_ns, int64_t out_of_time,
                         uint64_t at);
/// Where select and its like have their limit, and the kernel itself writes what is left when they are interrupted;
/// 0 for all others. `*timeval`: it is a struct timeval, and not a timespec.
uint64_t limit_address(const user_regs_struct& registers, bool* timeval);

}  // namespace mosix
