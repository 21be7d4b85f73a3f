#include "libmosix/process/descriptor.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD, Linux 6.9

UniqueFd copy(const UniqueFd& pidfd, int number) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
}

}  // namespace

Result<UniqueFd> take_descriptor(int pid, int number) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return fail_errno("look for process " + std::to_string(pid));
  return take_descriptor(pid, pidfd, number);
}

Result<UniqueFd> take_descriptor(int pid, const UniqueFd& pidfd, int number) {
  std::string what = "take descriptor " + std::to_string(number) + " of process " + std::to_string(pid);
  UniqueFd taken = copy(pidfd, number);
  if (taken) return taken;
  int error = errno;
  // A first thread that has ended has no table any more.
  int other = living_thread(pid);
  if (other == pid) return fail(error, what);
  UniqueFd thread(static_cast<int>(syscall(SYS_pidfd_open, other, kPidfdThread)));
  if (!thread && errno == EINVAL)
    return fail(ENOTSUP, what + ", whose first thread has ended (Linux 6.9 can)");
  if (thread) taken = copy(thread, number);
  if (!taken) return fail_errno(what);
  return taken;
}

}  // namespace mosix
