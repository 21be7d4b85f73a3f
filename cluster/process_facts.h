// Who may order which process about. A snapshot of /proc judged by fixed rules, each refusal a sentence.
// mosixd's main thread. A snapshot can be old when it is used: the custodian, which runs as the owner,
// is held by the kernel's own ptrace rules, and the start time tells a reused pid.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/spawn.h"
#include "libmosix/common/result.h"

namespace mosix {

struct ProcessFacts {
  int pid = 0;
  int parent = 0;
  uint64_t start_time = 0;  ///< clock ticks after boot; with the pid it names the process
  uint32_t uid = 0;         ///< real
  Identity owner;           ///< whom a custodian must be to trace it
  std::string program;
};

/// What /proc says of `pid`, without judging. ESRCH: no such process.
Result<ProcessFacts> read_process_facts(int pid);

/// The same for a process that shall be ordered about by the user `asker` (root may all). Errors:
/// ESRCH gone or a zombie; EINVAL not a process of its own (thread, kernel thread); EPERM another user's,
/// set-id, or a part of mosix itself. `what` is the whole sentence.
Result<ProcessFacts> check_order(int pid, uint32_t asker);

}  // namespace mosix
