#include "cluster/process_facts.h"

#include <fmt/format.h>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr uint32_t kKernelThreadFlag = 0x00200000;  // PF_KTHREAD

tl::unexpected<Error> gone(int pid) { return fail(ESRCH, fmt::format("there is no process {}", pid)); }

ProcessFacts facts_from(const ProcStat& stat, const ProcStatus& status) {
  ProcessFacts facts;
  facts.pid = stat.pid;
  facts.parent = stat.ppid;
  facts.start_time = stat.start_time;
  facts.uid = status.uid[0];
  facts.owner = {status.uid[0], status.gid[0], {status.groups.begin(), status.groups.end()}};
  facts.program = stat.comm;
  return facts;
}

bool all_equal(const std::array<uint32_t, 4>& ids) {
  return ids[0] == ids[1] && ids[0] == ids[2] && ids[0] == ids[3];
}

/// Custodians, supervisors and mosixd must not be moved: they would wait for themselves.
bool is_ours(int pid) {
  if (pid == getpid()) return true;
  Result<std::string> path = read_exe_path(pid);
  if (!path) return false;
  std::string name = path->substr(path->rfind('/') + 1);
  return name == "mosixd" || name == "mosix-custodian" || name == "mosix-supervisor";
}

}  // namespace

Result<ProcessFacts> read_process_facts(int pid) {
  if (pid <= 0) return fail(EINVAL, fmt::format("{} is not the number of a process", pid));
  Result<ProcStat> stat = read_proc_stat(pid);
  Result<ProcStatus> status = read_status_fields(pid);
  if (!stat || !status) return gone(pid);
  return facts_from(*stat, *status);
}

Result<ProcessFacts> check_order(int pid, uint32_t asker) {
  if (pid <= 0) return fail(EINVAL, fmt::format("{} is not the number of a process", pid));
  Result<ProcStat> stat = read_proc_stat(pid);
  Result<ProcStatus> status = read_status_fields(pid);
  if (!stat || !status) return gone(pid);
  if (stat->ended())
    return fail(ESRCH, fmt::format("process {} ({}) has ended and only waits for its parent to notice", pid,
                                   stat->comm));
  if (status->tgid != pid)
    return fail(EINVAL, fmt::format("{} is a thread of process {}; name the process", pid, status->tgid));
  if ((stat->flags & kKernelThreadFlag) != 0)
    return fail(EINVAL, fmt::format("{} ({}) is a thread of the kernel and cannot move", pid, stat->comm));
  if (asker != 0 && status->uid[0] != asker)
    return fail(EPERM, fmt::format("process {} ({}) belongs to another user (uid {})", pid, stat->comm,
                                   status->uid[0]));
  if (!all_equal(status->uid) || !all_equal(status->gid))
    return fail(EPERM,
                fmt::format("process {} ({}) runs a set-id program and stays at home", pid, stat->comm));
  if (is_ours(pid))
    return fail(EPERM, fmt::format("process {} ({}) is part of mosix and stays at home", pid, stat->comm));
  return facts_from(*stat, *status);
}

}  // namespace mosix
