// The supervisor's part in locking memory. The pages are here, so they are locked here, by the guest's own call and this
// kernel's count of what is locked. How much it may lock is home's word: its limit (RLIMIT_MEMLOCK), or none if it has
// CAP_IPC_LOCK there; no guest has a capability here, so this kernel holds to whatever limit it is given. What is locked
// goes along on a move (libmosix/process/advice.h).
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "libmosix/process/proc_stat.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

CallPlan ask_limit_plan() {
  return buffer_plan(SYS_prlimit64, {0, RLIMIT_MEMLOCK, 0, 0, 0, 0}, -1, nullptr, 0, 3, sizeof(rlimit),
                     OutRule::kFixed, 1);
}

CallPlan ask_capabilities_plan() {
  const __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return buffer_plan(SYS_capget, {0, 0, 0, 0, 0, 0}, 0, &head, sizeof head, 1,
                     2 * sizeof(__user_cap_data_struct), OutRule::kFixed, 1);
}

constexpr uint64_t kPage = 4096;

uint64_t locked_bytes(int pid) {
  Result<std::string> status = read_proc_file(pid, "status");
  size_t at = status ? status->find("\nVmLck:") : std::string::npos;
  return at == std::string::npos ? 0 : strtoull(status->c_str() + at + strlen("\nVmLck:"), nullptr, 10) << 10;
}

}  // namespace

Status allow_locking(int outer_pid, uint64_t least, uint64_t wanted) {
  struct rlimit limit {};
  if (prlimit(outer_pid, RLIMIT_MEMLOCK, nullptr, &limit) != 0)
    return fail_errno("read the limit of locked memory");
  // More than this node's own limit is for a supervisor with privileges.
  struct rlimit higher = {wanted, std::max<rlim_t>(limit.rlim_max, wanted)};
  if (prlimit(outer_pid, RLIMIT_MEMLOCK, &higher, nullptr) == 0) return {};
  if (limit.rlim_max < least) return fail(ENOMEM, "this node lets its guests lock less memory");
  limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
  if (prlimit(outer_pid, RLIMIT_MEMLOCK, &limit, nullptr) != 0)
    return fail_errno("set the limit of locked memory");
  return {};
}

/// For a call that locks memory, about to run here. False: it is answered, or goes home.
bool Supervisor::set_lock_limit(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  int outer = thread.guest->outer_pid;
  uint64_t least = locked_bytes(outer) + call.args()[1] + kPage;
  CallReply reply;
  struct rlimit limit {};
  __user_cap_data_struct capabilities[2]{};
  if (!ask_for_call(thread, call, ask_limit_plan(), kErestartnointr, &reply)) return false;
  bool known = take_out(reply, &limit);
  if (known && !ask_for_call(thread, call, ask_capabilities_plan(), kErestartnointr, &reply)) return false;
  known = known && take_out(reply, &capabilities);
  bool unlimited = (capabilities[0].effective & (1u << CAP_IPC_LOCK)) != 0;
  uint64_t allowed = unlimited ? RLIM_INFINITY : limit.rlim_cur;
  if (known && allow_locking(outer, std::min(least, allowed), allowed)) return true;
  bring_home(thread, call, std::string(row.name) + " of more than this node lets guests lock");
  return false;
}

void Supervisor::lock_memory(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  const auto& args = call.args();
  if (row.number != SYS_munlockall && thread.guest->is_ours(args[0], args[1])) return call.answer(-ENOMEM);
  bool locks = row.number == SYS_mlock || row.number == SYS_mlock2;
  if (!locks || set_lock_limit(thread, call, row)) call.let_run_here();
}

}  // namespace mosix
