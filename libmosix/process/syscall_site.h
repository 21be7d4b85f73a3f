// Where a `syscall` instruction stands in another process, so that calls can be injected without writing a
// byte of its text. The vDSO has some in every x86-64 process (its fallbacks); whether the two bytes 0f 05
// were meant as an instruction does not matter, the processor reads them as one when it is led there.
#pragma once

#include <cstdint>

#include "libmosix/common/result.h"

namespace mosix {

inline constexpr uint64_t kSyscallInstructionBytes = 2;

/// Address of the first 0f 05 in [start, end); ENOENT if there is none.
Result<uint64_t> find_syscall_instruction(int pid, uint64_t start, uint64_t end);
/// The same within the process's [vdso] mapping.
Result<uint64_t> find_vdso_syscall(int pid);

}  // namespace mosix
