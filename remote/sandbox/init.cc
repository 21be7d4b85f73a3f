// mosix-init: pid 1 of a sandbox, and before that the program that builds its namespaces.
//
// Started by Sandbox::create in the supervisor's own namespaces, with one thread and nothing but two sockets,
// it makes the namespaces, forks pid 1 as a sibling (CLONE_PARENT: the supervisor is pid 1's parent and reaps
// it) and exits. pid 1 then serves: it forks guests with chosen numbers, reaps them, translates pids. It ends
// when its command socket does, that is with the supervisor, and the kernel then kills everybody else in the
// namespace. PR_SET_PDEATHSIG would be wrong: it tells of the end of the THREAD that started us.
//
// There is no libc in it, for its forks are what guests are made of: libc would have registered rseq and
// robust lists, which the kernel writes to, and a vDSO-using, lazily bound runtime is of no use there. It
// keeps its capabilities (in its own user namespace only: ns_last_pid needs CAP_CHECKPOINT_RESTORE, sending
// another's pid CAP_SYS_ADMIN); the forks drop theirs before anything else can happen in them.
//
// Guests are none of its business once forked, and it believes nothing that they say: it never reads from
// them.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <linux/wait.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "libmosix/agent/raw.h"
#include "remote/sandbox/init_protocol.h"

using namespace mosix;

// The compiler may call these for structs, also in freestanding code.
extern "C" void* memcpy(void* to, const void* from, size_t bytes) {
  copy_bytes(to, from, bytes);
  return to;
}
extern "C" void* memset(void* to, int value, size_t bytes) {
  void* at = to;
  asm volatile("rep stosb" : "+D"(at), "+c"(bytes) : "a"(value) : "memory");
  return to;
}

namespace {

constexpr int kLastPidFd = 5;
constexpr int kSignalFd = 6;
constexpr int kNoFd = -1;
constexpr uint64_t kChildSignalMask = 1ull << (SIGCHLD - 1);
constexpr uint64_t kSignalMaskBytes = 8;
constexpr int kSpawnAttempts = 3;

struct Ids {
  uint32_t uid, gid;
};
Ids own_ids;

/// What the stub tells pid 1 through a pipe if it fails; it says nothing, but ends, if all is well.
struct StubFailure {
  int32_t error;
  int32_t step;
};

[[noreturn]] void leave(int status) {
  for (;;) raw_syscall(SYS_exit_group, static_cast<uint64_t>(status));
}

// --- text ------------------------------------------------------------------------------------------

struct Text {
  char bytes[128];
  size_t length = 0;
  Text& add(const char* words) {
    while (*words != 0) bytes[length++] = *words++;
    return *this;
  }
  Text& add(int64_t number) {
    char digits[24];
    int count = 0;
    uint64_t rest = number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    do digits[count++] = static_cast<char>('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (number < 0) bytes[length++] = '-';
    while (count > 0) bytes[length++] = digits[--count];
    return *this;
  }
};

/// 0 or -errno.
int64_t write_file(const char* path, const Text& text) {
  int64_t fd = raw_syscall(SYS_open, address_of(path), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return fd;
  int64_t written = raw_syscall(SYS_write, static_cast<uint64_t>(fd), address_of(text.bytes), text.length);
  raw_syscall(SYS_close, static_cast<uint64_t>(fd));
  return written < 0 ? written : 0;
}

// --- answers ---------------------------------------------------------------------------------------

/// Sends a reply whose credentials name `pid`, which arrives as the supervisor's number for it, and a
/// descriptor.
int64_t send_reply(int32_t error, int32_t step, int32_t pid, int fd) {
  InitReply reply{error, step};
  iovec piece{&reply, sizeof(reply)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  auto* credentials_head = reinterpret_cast<cmsghdr*>(control);
  credentials_head->cmsg_len = CMSG_LEN(sizeof(ucred));
  credentials_head->cmsg_level = SOL_SOCKET;
  credentials_head->cmsg_type = SCM_CREDENTIALS;
  ucred credentials{pid, own_ids.uid, own_ids.gid};
  copy_bytes(CMSG_DATA(credentials_head), &credentials, sizeof(credentials));
  message.msg_controllen = CMSG_SPACE(sizeof(ucred));
  if (fd != kNoFd) {
    auto* rights_head = reinterpret_cast<cmsghdr*>(control + CMSG_SPACE(sizeof(ucred)));
    rights_head->cmsg_len = CMSG_LEN(sizeof(int));
    rights_head->cmsg_level = SOL_SOCKET;
    rights_head->cmsg_type = SCM_RIGHTS;
    copy_bytes(CMSG_DATA(rights_head), &fd, sizeof(fd));
    message.msg_controllen += CMSG_SPACE(sizeof(int));
  }
  return raw_syscall(SYS_sendmsg, kInitCommandFd, address_of(&message), MSG_NOSIGNAL);
}

/// Our own number: of the helper outside, 1 of pid 1.
int32_t own_pid() { return static_cast<int32_t>(raw_syscall(SYS_getpid)); }

[[noreturn]] void give_up(InitStep step, int64_t result) {
  send_reply(static_cast<int32_t>(-result), step, own_pid(), kNoFd);
  leave(1);
}

void require(InitStep step, int64_t result) {
  if (result < 0) give_up(step, result);
}

// --- namespaces ------------------------------------------------------------------------------------

/// Maps our own user and group to themselves, the one mapping that needs no privilege.
void map_ids(Ids ids) {
  Text deny, uid_map, gid_map;
  require(kStepIdMaps, write_file("/proc/self/setgroups", deny.add("deny")));
  require(kStepIdMaps,
          write_file("/proc/self/uid_map", uid_map.add(ids.uid).add(" ").add(ids.uid).add(" 1\n")));
  require(kStepIdMaps,
          write_file("/proc/self/gid_map", gid_map.add(ids.gid).add(" ").add(ids.gid).add(" 1\n")));
}

void add_clock(Text& text, const char* name, int64_t offset_ns) {
  constexpr int64_t kSecond = 1'000'000'000;
  int64_t seconds = offset_ns / kSecond, rest = offset_ns % kSecond;
  if (rest < 0) --seconds, rest += kSecond;  // the kernel wants nanoseconds from 0 on
  text.add(name).add(" ").add(seconds).add(" ").add(rest).add("\n");
}

/// Offsets can be written only until the first process is in the new time namespace.
void set_clocks(const InitSetup& setup) {
  Text text;
  add_clock(text, "monotonic", setup.monotonic_offset_ns);
  add_clock(text, "boottime", setup.boottime_offset_ns);
  require(kStepClockOffsets, write_file("/proc/self/timens_offsets", text));
}

/// An empty read-only root. /proc serves as the place to mount it because it is the one directory that must
/// exist.
void enter_empty_root() {
  constexpr uint64_t kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  const char *root = "/", *proc = "/proc", *here = ".", *type = "tmpfs",
             *options = "size=4k,nr_inodes=1,mode=0555";
  require(kStepRoot, raw_syscall(SYS_mount, 0, address_of(root), 0, MS_REC | MS_PRIVATE, 0));
  require(kStepRoot, raw_syscall(SYS_mount, address_of(type), address_of(proc), address_of(type), kFlags,
                                 address_of(options)));
  require(kStepRoot, raw_syscall(SYS_chdir, address_of(proc)));
  if (raw_syscall(SYS_pivot_root, address_of(here), address_of(here)) == 0) {
    require(kStepRoot, raw_syscall(SYS_umount2, address_of(here), MNT_DETACH));
  } else {
    // The first root of a machine that runs from its initramfs cannot be pivoted away, only be covered. What
    // lies under it stays out of reach for guests, who have no capability to mount or to change root.
    require(kStepRoot, raw_syscall(SYS_mount, address_of(here), address_of(root), 0, MS_MOVE, 0));
    require(kStepRoot, raw_syscall(SYS_chroot, address_of(here)));
  }
  require(kStepRoot, raw_syscall(SYS_chdir, address_of(root)));
  require(kStepRoot,
          raw_syscall(SYS_mount, 0, address_of(root), 0, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, 0));
}

/// What forks inherit and what costs them nothing then.
void set_limits() {
  rlimit64 limit{};
  raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, address_of(&limit));
  limit.rlim_cur = limit.rlim_max;
  raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, address_of(&limit), 0);
  // The dead of this node leave their core at home. 1 is the value that stops files and pipes alike
  // (fs/coredump.c).
  raw_syscall(SYS_prlimit64, 0, RLIMIT_CORE, 0, address_of(&limit));
  limit.rlim_cur = limit.rlim_max == 0 ? 0 : 1;
  raw_syscall(SYS_prlimit64, 0, RLIMIT_CORE, address_of(&limit), 0);
  require(kStepNoNewPrivileges, raw_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1));
  // The bounding set limits what an execve can give; pid 1 itself keeps what it has.
  for (uint64_t capability = 0; raw_syscall(SYS_prctl, PR_CAPBSET_DROP, capability) == 0; ++capability) {
  }
  require(kStepDropCapabilities,
          raw_syscall(SYS_prctl, PR_SET_SECUREBITS,
                      SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                          SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED));
}

/// Actions that the supervisor ignores would otherwise be ignored in guests. SIGCHLD is read from a
/// descriptor.
void set_signals() {
  struct {
    uint64_t handler, flags, restorer, mask;
  } standard{};
  for (uint64_t signal = 1; signal <= 64; ++signal)
    raw_syscall(SYS_rt_sigaction, signal, address_of(&standard), 0, kSignalMaskBytes);
  require(kStepSignals,
          raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, address_of(&kChildSignalMask), 0, kSignalMaskBytes));
  int64_t fd = raw_syscall(SYS_signalfd4, static_cast<uint64_t>(-1), address_of(&kChildSignalMask),
                           kSignalMaskBytes, O_CLOEXEC | O_NONBLOCK);
  require(kStepSignals, fd);
  if (fd != kSignalFd)
    require(kStepSignals, raw_syscall(SYS_dup3, static_cast<uint64_t>(fd), kSignalFd, O_CLOEXEC));
}

// --- forking guests --------------------------------------------------------------------------------

[[noreturn]] void stub_failed(uint64_t report_fd, InitStep step, int64_t result) {
  StubFailure failure{static_cast<int32_t>(-result), step};
  raw_syscall(SYS_write, report_fd, address_of(&failure), sizeof(failure));
  leave(1);
}

/// The child: a guest to be. Closing the last descriptor is what tells pid 1 that it is ready.
[[noreturn]] void stub_main(uint64_t report_fd) {
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2]{};
  if (int64_t result = raw_syscall(SYS_capset, address_of(&head), address_of(none)); result < 0)
    stub_failed(report_fd, kStepDropCapabilities, result);
  uint64_t empty_mask = 0;
  raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, address_of(&empty_mask), 0, kSignalMaskBytes);
  raw_syscall(SYS_setsid);
  raw_syscall(SYS_close_range, 0, ~0u, 0);
  for (;;) raw_syscall(SYS_pause);
}

int64_t set_next_pid(int32_t pid) {
  Text text;
  text.add(pid - 1);
  return raw_syscall(SYS_pwrite64, kLastPidFd, address_of(text.bytes), text.length, 0);
}

void kill_and_reap(int64_t pid) {
  raw_syscall(SYS_kill, static_cast<uint64_t>(pid), SIGKILL);
  while (raw_syscall(SYS_wait4, static_cast<uint64_t>(pid), 0, __WALL, 0) == -EINTR) {
  }
}

/// One fork. Returns the new number or -errno; the pidfd is the caller's to close.
int64_t fork_stub(int& pidfd, int32_t& failed_step) {
  int ends[2];
  failed_step = kStepClone;
  if (int64_t result = raw_syscall(SYS_pipe2, address_of(ends), O_CLOEXEC); result < 0) return result;
  auto read_end = static_cast<uint64_t>(ends[0]), write_end = static_cast<uint64_t>(ends[1]);
  int64_t pid = raw_syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, address_of(&pidfd), 0, 0);
  if (pid == 0) stub_main(write_end);
  raw_syscall(SYS_close, write_end);
  StubFailure failure{};
  int64_t got = 0;
  if (pid > 0)
    while ((got = raw_syscall(SYS_read, read_end, address_of(&failure), sizeof(failure))) == -EINTR) {
    }
  raw_syscall(SYS_close, read_end);
  if (got == 0) return pid;
  raw_syscall(SYS_close, static_cast<uint64_t>(pidfd));
  kill_and_reap(pid);
  failed_step = failure.step;
  return -failure.error;
}

void spawn(int32_t wanted) {
  if (wanted < 2) {
    send_reply(EINVAL, kStepWriteLastPid, 1, kNoFd);
    return;
  }
  int32_t failed_step = kStepNone;
  int32_t error = EEXIST;
  for (int attempt = 0; attempt < kSpawnAttempts; ++attempt) {
    if (int64_t written = set_next_pid(wanted); written < 0) {
      send_reply(static_cast<int32_t>(-written), kStepWriteLastPid, 1, kNoFd);
      return;
    }
    int pidfd = kNoFd;
    int64_t pid = fork_stub(pidfd, failed_step);
    if (pid < 0) {
      send_reply(static_cast<int32_t>(-pid), failed_step, 1, kNoFd);
      return;
    }
    if (pid == wanted) {
      send_reply(0, kStepNone, wanted, pidfd);
      raw_syscall(SYS_close, static_cast<uint64_t>(pidfd));
      return;
    }
    raw_syscall(SYS_close, static_cast<uint64_t>(pidfd));
    kill_and_reap(pid);
    // A lower number means that the search went over the top: there is no such pid on this node. A higher
    // one, that the pid is taken, or that some guest forked between our write and our clone: another attempt
    // tells them apart.
    error = pid < wanted ? EINVAL : EEXIST;
  }
  send_reply(error, error == EINVAL ? kStepWriteLastPid : kStepPidInUse, 1, kNoFd);
}

void set_next_tid(int32_t tid) {
  int64_t written = tid < 2 ? -EINVAL : set_next_pid(tid);
  send_reply(written < 0 ? static_cast<int32_t>(-written) : 0, kStepWriteLastPid, 1, kNoFd);
}

/// The kernel refuses credentials with a pid that does not exist (ESRCH).
void translate(int32_t pid) {
  if (int64_t sent = send_reply(0, kStepTranslate, pid, kNoFd); sent < 0)
    send_reply(static_cast<int32_t>(-sent), kStepTranslate, 1, kNoFd);
}

// --- serving ---------------------------------------------------------------------------------------

void handle_command() {
  InitRequest request{};
  int64_t got = raw_syscall(SYS_recvfrom, kInitCommandFd, address_of(&request), sizeof(request), 0, 0, 0);
  if (got == -EINTR || got == -EAGAIN) return;
  if (got <= 0) leave(0);
  switch (request.kind) {
    case kInitSpawn:
      return spawn(request.value);
    case kInitSetNextTid:
      return set_next_tid(request.value);
    case kInitTranslate:
      return translate(request.value);
    default:
      send_reply(EINVAL, kStepUnknownCommand, 1, kNoFd);
  }
}

/// Reaps and reports until nobody is left or the supervisor's queue is full; zombies are then the queue.
/// Returns true if the event socket must be waited for.
bool report_deaths(InitEvent& unsent) {
  for (;;) {
    if (unsent.pid == 0) {
      rusage used{};
      int64_t pid = raw_syscall(SYS_wait4, static_cast<uint64_t>(-1), address_of(&unsent.wait_status),
                                WNOHANG | __WALL, address_of(&used));
      if (pid <= 0) return false;
      unsent.user_us = used.ru_utime.tv_sec * 1'000'000 + used.ru_utime.tv_usec;
      unsent.system_us = used.ru_stime.tv_sec * 1'000'000 + used.ru_stime.tv_usec;
      unsent.peak_kib = used.ru_maxrss;
      unsent.pid = static_cast<int32_t>(pid);
    }
    int64_t sent = raw_syscall(SYS_sendto, kInitEventFd, address_of(&unsent), sizeof(unsent),
                               MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0);
    if (sent == -EAGAIN) return true;
    unsent.pid = 0;
  }
}

[[noreturn]] void serve() {
  InitEvent unsent{};
  bool queue_full = false;
  for (;;) {
    pollfd watched[3] = {
        {kInitCommandFd, POLLIN, 0}, {kSignalFd, POLLIN, 0}, {queue_full ? kInitEventFd : kNoFd, POLLOUT, 0}};
    raw_syscall(SYS_poll, address_of(watched), 3, static_cast<uint64_t>(-1));
    if (watched[1].revents != 0) {
      char drained[128 * 4];  // signalfd_siginfo records; what they say is what wait4 says
      raw_syscall(SYS_read, kSignalFd, address_of(drained), sizeof(drained));
    }
    if (watched[1].revents != 0 || watched[2].revents != 0) queue_full = report_deaths(unsent);
    if (watched[0].revents != 0) handle_command();
  }
}

[[noreturn]] void pid1_main() {
  const char* last_pid = "/proc/sys/kernel/ns_last_pid";
  int64_t fd = raw_syscall(SYS_open, address_of(last_pid), O_WRONLY | O_CLOEXEC);
  require(kStepOpenLastPid, fd);
  if (fd != kLastPidFd)
    require(kStepOpenLastPid, raw_syscall(SYS_dup3, static_cast<uint64_t>(fd), kLastPidFd, O_CLOEXEC));
  enter_empty_root();
  set_signals();
  set_limits();
  raw_syscall(SYS_close_range, 0, kInitCommandFd - 1, 0);
  raw_syscall(SYS_close_range, kSignalFd + 1, ~0u, 0);
  send_reply(0, kStepNone, own_pid(), kNoFd);
  serve();
}

}  // namespace

extern "C" [[noreturn]] void init_main() {
  InitSetup setup{};
  int64_t got = raw_syscall(SYS_recvfrom, kInitCommandFd, address_of(&setup), sizeof(setup), 0, 0, 0);
  own_ids = {static_cast<uint32_t>(raw_syscall(SYS_geteuid)),
             static_cast<uint32_t>(raw_syscall(SYS_getegid))};
  if (got != sizeof(setup)) give_up(kStepSetup, got < 0 ? got : -EBADMSG);
  require(kStepUnshare, raw_syscall(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                                                     CLONE_NEWUTS | CLONE_NEWPID | CLONE_NEWTIME));
  map_ids(own_ids);
  set_clocks(setup);
  int64_t pid = raw_syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) pid1_main();
  require(kStepForkInit, pid);
  leave(0);
}

asm(R"(
  .globl _start
  .type _start, @function
_start:
  xorl %ebp, %ebp
  andq $-16, %rsp
  call init_main
  ud2
)");
