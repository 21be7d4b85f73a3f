// Probes of what surrounds a guest on an away node: namespaces that an ordinary user can make, the seccomp
// filter with its notifications, and chosen pids.

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>

#include "libmosix/common/net.h"
#include "libmosix/common/unique_fd.h"
#include "tools/check_probe.h"

namespace mosix {
namespace {

// Newer than Debian 12's headers.
constexpr unsigned long kNotifSetFlags = SECCOMP_IOW(4, uint64_t);
constexpr uint64_t kSyncWakeUp = 1;
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

std::string user_namespace_cure() {
  if (first_line("/proc/sys/user/max_user_namespaces") == "0")
    return "user.max_user_namespaces is 0: sysctl user.max_user_namespaces=65536";
  if (first_line("/proc/sys/kernel/unprivileged_userns_clone") == "0")
    return "sysctl kernel.unprivileged_userns_clone=1";
  if (first_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1")
    return "AppArmor restricts them: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile "
           "with "
           "`userns,` for mosix-supervisor";
  return "a kernel with CONFIG_USER_NS; in a container, a seccomp profile that allows unshare";
}

std::string seccomp_cure() { return "Linux 5.19 or newer with CONFIG_SECCOMP_FILTER"; }

/// Enters a user namespace where the own user and group keep their numbers.
ProbeResult enter_user_namespace() {
  unsigned uid = geteuid(), gid = getegid();
  if (unshare(CLONE_NEWUSER) != 0) return lacks("unshare(CLONE_NEWUSER)");
  if (!write_file("/proc/self/setgroups", "deny")) return lacks("write /proc/self/setgroups");
  if (!write_file("/proc/self/uid_map", fmt::format("{0} {0} 1", uid)))
    return lacks("write /proc/self/uid_map");
  if (!write_file("/proc/self/gid_map", fmt::format("{0} {0} 1", gid)))
    return lacks("write /proc/self/gid_map");
  return works();
}

/// A namespace of our own within a user namespace of our own.
ProbeResult enter(int flags, const char* name) {
  if (ProbeResult user = enter_user_namespace(); !user.ok) return user;
  return unshare(flags) == 0 ? works() : lacks(fmt::format("unshare({})", name));
}

ProbeResult probe_user() {
  // The namespace alone is no proof: AppArmor gives it without its capabilities.
  if (ProbeResult user = enter(CLONE_NEWUTS, "CLONE_NEWUTS"); !user.ok) return user;
  return sethostname("probe", 5) == 0 ? works() : lacks("sethostname with its capabilities");
}

ProbeResult probe_pid() {
  if (ProbeResult entered = enter(CLONE_NEWPID, "CLONE_NEWPID"); !entered.ok) return entered;
  return in_child(
      [] { return getpid() == 1 ? works() : lacks_because("the first process in it is not number 1"); });
}

ProbeResult probe_mount() {
  if (ProbeResult entered = enter(CLONE_NEWNS, "CLONE_NEWNS"); !entered.ok) return entered;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return lacks("make mounts private");
  if (mount("none", "/tmp", "tmpfs", 0, "size=64k") != 0) return lacks("mount an empty tmpfs");
  if (chdir("/tmp") != 0 || syscall(SYS_pivot_root, ".", ".") != 0) return lacks("pivot_root");
  return umount2(".", MNT_DETACH) == 0 ? works() : lacks("detach the old root");
}

ProbeResult probe_net() { return enter(CLONE_NEWNET, "CLONE_NEWNET"); }
ProbeResult probe_ipc() { return enter(CLONE_NEWIPC, "CLONE_NEWIPC"); }
ProbeResult probe_uts() { return enter(CLONE_NEWUTS, "CLONE_NEWUTS"); }

int64_t monotonic_s() {
  timespec now{};
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

ProbeResult probe_time() {
  if (ProbeResult entered = enter(CLONE_NEWTIME, "CLONE_NEWTIME"); !entered.ok) return entered;
  if (!write_file("/proc/self/timens_offsets", "monotonic 5000 0\nboottime 5000 0\n"))
    return lacks("write /proc/self/timens_offsets");
  int64_t before = monotonic_s();
  return in_child([before] {
    return monotonic_s() >= before + 5000 ? works() : lacks_because("the clock did not move");
  });
}

ProbeResult probe_last_pid() {
  if (ProbeResult entered = enter(CLONE_NEWPID, "CLONE_NEWPID"); !entered.ok) return entered;
  return in_child([] {
    if (!write_file("/proc/sys/kernel/ns_last_pid", "3999"))
      return lacks("write /proc/sys/kernel/ns_last_pid");
    return in_child(
        [] { return getpid() == 4000 ? works() : lacks_because("the next process has another pid"); });
  });
}

/// A filter that notifies of getppid and lets all else run. Returns its listener, or -1 with errno.
int install_listener(unsigned flags) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{sizeof code / sizeof *code, code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

constexpr long kAnswer = 471147;

/// A filtered child makes one getppid, `serve` treats the listener and the notification, and the child must
/// have got kAnswer. `check` runs in the child afterwards.
ProbeResult with_notification(unsigned flags,
                              const std::function<ProbeResult(int listener, uint64_t id)>& serve,
                              const std::function<ProbeResult()>& check) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return lacks("socketpair");
  UniqueFd mine(pair[0]), theirs(pair[1]);
  pid_t child = fork();
  if (child < 0) return lacks("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int listener = install_listener(flags);
    if (listener < 0) _exit(errno);
    if (!send_link(theirs.get(), "listener", listener)) _exit(EIO);
    close(listener);
    if (syscall(SYS_getppid) != kAnswer) _exit(EBADMSG);
    _exit(check().ok ? 0 : ENODATA);
  }
  theirs.reset();
  ProbeResult result = works();
  if (auto message = receive_link(mine.get()); message && message->fd) {
    seccomp_notif call{};
    if (ioctl(message->fd.get(), SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
      result = lacks("SECCOMP_IOCTL_NOTIF_RECV");
    if (result.ok) result = serve(message->fd.get(), call.id);
    seccomp_notif_resp answer{};
    answer.id = call.id;
    answer.val = kAnswer;
    if (result.ok && ioctl(message->fd.get(), SECCOMP_IOCTL_NOTIF_SEND, &answer) != 0)
      result = lacks("SECCOMP_IOCTL_NOTIF_SEND");
  }
  if (!result.ok) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (!result.ok || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return result;
  errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
  return lacks(errno == ENODATA ? "the filtered process did not see the effect" : "filtered process");
}

ProbeResult no_more(int, uint64_t) { return works(); }
ProbeResult nothing_to_check() { return works(); }

constexpr unsigned kFilterFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH;

ProbeResult probe_notification() { return with_notification(kFilterFlags, no_more, nothing_to_check); }

ProbeResult probe_wait_killable() {
  return with_notification(kFilterFlags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, no_more, nothing_to_check);
}

ProbeResult probe_sync_wake_up() {
  auto serve = [](int listener, uint64_t) {
    return ioctl(listener, kNotifSetFlags, kSyncWakeUp) == 0 ? works()
                                                             : lacks("SECCOMP_IOCTL_NOTIF_SET_FLAGS");
  };
  return with_notification(0, serve, nothing_to_check);
}

ProbeResult probe_addfd() {
  constexpr int kChosenNumber = 60;
  auto serve = [](int listener, uint64_t id) {
    UniqueFd file(open("/dev/null", O_RDONLY | O_CLOEXEC));
    seccomp_notif_addfd order{};
    order.id = id;
    order.flags = SECCOMP_ADDFD_FLAG_SETFD;
    order.srcfd = static_cast<uint32_t>(file.get());
    order.newfd = kChosenNumber;
    return ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &order) == kChosenNumber
               ? works()
               : lacks("SECCOMP_IOCTL_NOTIF_ADDFD");
  };
  auto check = [] { return fcntl(kChosenNumber, F_GETFD) >= 0 ? works() : lacks("descriptor"); };
  return with_notification(0, serve, check);
}

const Probe kProbes[] = {
    {"user namespace", true, "this node cannot host guests", user_namespace_cure, probe_user},
    {"pid namespace", true, "guests cannot keep their pids: this node cannot host any", user_namespace_cure,
     probe_pid},
    {"mount namespace with an empty root", true, "guests cannot be locked in: this node hosts none",
     user_namespace_cure, probe_mount},
    {"network namespace", true, "guests cannot be locked in: this node hosts none", user_namespace_cure,
     probe_net},
    {"IPC namespace", true, "guests cannot be locked in: this node hosts none", user_namespace_cure,
     probe_ipc},
    {"UTS namespace", true, "guests cannot be locked in: this node hosts none", user_namespace_cure,
     probe_uts},
    {"time namespace", false, "programs that watch the monotonic clock stay at home",
     [] { return std::string("Linux 5.6 or newer with CONFIG_TIME_NS"); }, probe_time},
    {"chosen pids (ns_last_pid)", true, "guests cannot keep their pids: this node cannot host any",
     [] {
       return std::string("a kernel with CONFIG_CHECKPOINT_RESTORE; in a container, a writable /proc/sys");
     },
     probe_last_pid},
    {"seccomp user notification", true, "calls of guests cannot be sent home", seccomp_cure,
     probe_notification},
    {"seccomp: WAIT_KILLABLE_RECV", true, "a signal could drop a call that home has already made",
     seccomp_cure, probe_wait_killable},
    {"seccomp: SYNC_WAKE_UP", false, "a forwarded call costs some 40 us more on an idle machine",
     [] { return std::string("Linux 6.6 or newer"); }, probe_sync_wake_up},
    {"seccomp: ADDFD", true, "channels cannot be put into a guest",
     [] { return std::string("Linux 5.9 or newer"); }, probe_addfd},
};

}  // namespace

std::span<const Probe> sandbox_probes() { return kProbes; }

}  // namespace mosix
