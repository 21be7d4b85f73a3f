// Threads that stand in the kernel's vDSO. Its code reads a page of clock data, and which page that is differs
// between a process in a time namespace (a guest away from home) and one in none (the same process at home):
// code that has made its choice on one node must not go on with it on another, where that page may not exist
// (SIGBUS). So whoever captures a thread leads it out of there first. Used by custodian and supervisor.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/tracee.h"

namespace mosix {

struct CodeRange {
  uint64_t start = 0;
  uint64_t end = 0;  ///< exclusive; start == end: none
  bool contains(uint64_t address) const { return address >= start && address < end; }
};

/// The [vdso] mapping: code only, without its data pages.
CodeRange vdso_code(const std::vector<MapEntry>& maps);

/// Lets a thread that stands in `vdso`, in a stop of ours, run to the end of the function, or to the system call
/// that the function falls back to: from both it can go on anywhere. Signals are blocked meanwhile and stay
/// pending. Nothing to do for a thread that is in a system call. The last stop may be another than before.
/// EBUSY: it does not come out.
Status leave_vdso(Tracee& tracee, CodeRange vdso);

/// The same for code that makes system calls of its own, none of which takes long.
Status leave_code(Tracee& tracee, CodeRange code);

/// True if a signal handler that has not returned yet has interrupted code in `vdso`: its return leads back there.
/// `restorers`: the return addresses of the process's handlers, which mark a handler's frame on a stack.
Result<bool> returns_into_vdso(const Tracee& tracee, const ProcessMemory& memory, CodeRange vdso,
                               const std::vector<MapEntry>& maps, const std::vector<uint64_t>& restorers);

/// The same for all threads of a process: EAGAIN, with the reason, for one that cannot go elsewhere just now.
template <class Actions>
Status check_handlers(const std::vector<Tracee>& threads, int pid, const std::vector<MapEntry>& maps,
                      const Actions& actions) {
  std::vector<uint64_t> restorers;
  for (const auto& action : actions) {
    bool known = std::find(restorers.begin(), restorers.end(), action.restorer) != restorers.end();
    if (action.restorer != 0 && !known) restorers.push_back(action.restorer);
  }
  TRY(ProcessMemory memory, ProcessMemory::open(pid));
  for (const Tracee& thread : threads) {
    TRY(bool inside, returns_into_vdso(thread, memory, vdso_code(maps), maps, restorers));
    if (inside) return fail(EAGAIN, "a signal handler has interrupted the reading of a clock; try again");
  }
  return {};
}

}  // namespace mosix
