// Descriptors of another process, for the custodian: those of deputies and of processes that are to move.
#pragma once

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// A copy, close-on-exec, of descriptor `number` of process `pid`, by pidfd_getfd(2): needs ptrace access to it.
/// EBADF: it has none of that number. ESRCH: there is no such process. ENOTSUP: its first thread has ended, and the
/// kernel (before Linux 6.9) knows no other way to its table.
Result<UniqueFd> take_descriptor(int pid, int number);
/// The same by a pidfd of the process, which nobody else can have become meanwhile.
Result<UniqueFd> take_descriptor(int pid, const UniqueFd& pidfd, int number);

}  // namespace mosix
