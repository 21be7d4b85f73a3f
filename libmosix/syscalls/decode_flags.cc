// Flag sets and enumerations by the names that rows use for them (`decode`). Each is one list: values whose
// bits lie inside `enumeration` exclude one another (O_RDONLY, O_WRONLY, O_RDWR; a whole enumeration has all
// bits there), the others add up. Composites stand before their parts.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <span>

#include <fmt/format.h>

#include "libmosix/syscalls/decode_text.h"

namespace mosix {
namespace {

struct NamedValue {
  uint64_t value;
  std::string_view name;
};

#define MOSIX_NAMED(value) \
  NamedValue { static_cast<uint64_t>(value), #value }

constexpr uint64_t kEnumeration = ~uint64_t{0};

constexpr NamedValue kAccessMode[] = {
    MOSIX_NAMED(F_OK),
    MOSIX_NAMED(R_OK),
    MOSIX_NAMED(W_OK),
    MOSIX_NAMED(X_OK),
};
constexpr NamedValue kAtFlags[] = {
    MOSIX_NAMED(AT_SYMLINK_NOFOLLOW), MOSIX_NAMED(AT_EACCESS),    MOSIX_NAMED(AT_SYMLINK_FOLLOW),
    MOSIX_NAMED(AT_NO_AUTOMOUNT),     MOSIX_NAMED(AT_EMPTY_PATH), MOSIX_NAMED(AT_STATX_FORCE_SYNC),
    MOSIX_NAMED(AT_STATX_DONT_SYNC),  MOSIX_NAMED(AT_RECURSIVE),
};
constexpr NamedValue kClockId[] = {
    MOSIX_NAMED(CLOCK_REALTIME),
    MOSIX_NAMED(CLOCK_MONOTONIC),
    MOSIX_NAMED(CLOCK_PROCESS_CPUTIME_ID),
    MOSIX_NAMED(CLOCK_THREAD_CPUTIME_ID),
    MOSIX_NAMED(CLOCK_MONOTONIC_RAW),
    MOSIX_NAMED(CLOCK_REALTIME_COARSE),
    MOSIX_NAMED(CLOCK_MONOTONIC_COARSE),
    MOSIX_NAMED(CLOCK_BOOTTIME),
    MOSIX_NAMED(CLOCK_REALTIME_ALARM),
    MOSIX_NAMED(CLOCK_BOOTTIME_ALARM),
    MOSIX_NAMED(CLOCK_TAI),
};
constexpr NamedValue kCloneFlags[] = {
    MOSIX_NAMED(CLONE_VM),
    MOSIX_NAMED(CLONE_FS),
    MOSIX_NAMED(CLONE_FILES),
    MOSIX_NAMED(CLONE_SIGHAND),
    MOSIX_NAMED(CLONE_PIDFD),
    MOSIX_NAMED(CLONE_PTRACE),
    MOSIX_NAMED(CLONE_VFORK),
    MOSIX_NAMED(CLONE_PARENT),
    MOSIX_NAMED(CLONE_THREAD),
    MOSIX_NAMED(CLONE_NEWNS),
    MOSIX_NAMED(CLONE_SYSVSEM),
    MOSIX_NAMED(CLONE_SETTLS),
    MOSIX_NAMED(CLONE_PARENT_SETTID),
    MOSIX_NAMED(CLONE_CHILD_CLEARTID),
    MOSIX_NAMED(CLONE_DETACHED),
    MOSIX_NAMED(CLONE_UNTRACED),
    MOSIX_NAMED(CLONE_CHILD_SETTID),
    MOSIX_NAMED(CLONE_NEWCGROUP),
    MOSIX_NAMED(CLONE_NEWUTS),
    MOSIX_NAMED(CLONE_NEWIPC),
    MOSIX_NAMED(CLONE_NEWUSER),
    MOSIX_NAMED(CLONE_NEWPID),
    MOSIX_NAMED(CLONE_NEWNET),
    MOSIX_NAMED(CLONE_IO),
};
constexpr NamedValue kCloseRangeFlags[] = {MOSIX_NAMED(CLOSE_RANGE_UNSHARE),
                                           MOSIX_NAMED(CLOSE_RANGE_CLOEXEC)};
constexpr NamedValue kEpollEvents[] = {
    MOSIX_NAMED(EPOLLIN),     MOSIX_NAMED(EPOLLPRI),     MOSIX_NAMED(EPOLLOUT),
    MOSIX_NAMED(EPOLLERR),    MOSIX_NAMED(EPOLLHUP),     MOSIX_NAMED(EPOLLRDNORM),
    MOSIX_NAMED(EPOLLRDBAND), MOSIX_NAMED(EPOLLWRNORM),  MOSIX_NAMED(EPOLLWRBAND),
    MOSIX_NAMED(EPOLLMSG),    MOSIX_NAMED(EPOLLRDHUP),   MOSIX_NAMED(EPOLLEXCLUSIVE),
    MOSIX_NAMED(EPOLLWAKEUP), MOSIX_NAMED(EPOLLONESHOT), {1u << 31, "EPOLLET"},
};
constexpr NamedValue kEpollOp[] = {MOSIX_NAMED(EPOLL_CTL_ADD), MOSIX_NAMED(EPOLL_CTL_DEL),
                                   MOSIX_NAMED(EPOLL_CTL_MOD)};
constexpr NamedValue kFadvise[] = {
    MOSIX_NAMED(POSIX_FADV_NORMAL),   MOSIX_NAMED(POSIX_FADV_RANDOM),   MOSIX_NAMED(POSIX_FADV_SEQUENTIAL),
    MOSIX_NAMED(POSIX_FADV_WILLNEED), MOSIX_NAMED(POSIX_FADV_DONTNEED), MOSIX_NAMED(POSIX_FADV_NOREUSE),
};
constexpr NamedValue kFallocateMode[] = {
    MOSIX_NAMED(FALLOC_FL_KEEP_SIZE),      MOSIX_NAMED(FALLOC_FL_PUNCH_HOLE),
    MOSIX_NAMED(FALLOC_FL_COLLAPSE_RANGE), MOSIX_NAMED(FALLOC_FL_ZERO_RANGE),
    MOSIX_NAMED(FALLOC_FL_INSERT_RANGE),   MOSIX_NAMED(FALLOC_FL_UNSHARE_RANGE),
};
constexpr NamedValue kFdCloexec[] = {MOSIX_NAMED(FD_CLOEXEC)};
constexpr NamedValue kFdFlags[] = {MOSIX_NAMED(O_CLOEXEC), MOSIX_NAMED(O_NONBLOCK),
                                   MOSIX_NAMED(EFD_SEMAPHORE), MOSIX_NAMED(O_DIRECT)};
constexpr NamedValue kFlockOp[] = {MOSIX_NAMED(LOCK_SH), MOSIX_NAMED(LOCK_EX), MOSIX_NAMED(LOCK_UN),
                                   MOSIX_NAMED(LOCK_NB)};
constexpr NamedValue kFutexOp[] = {
    MOSIX_NAMED(FUTEX_WAIT),
    MOSIX_NAMED(FUTEX_WAKE),
    MOSIX_NAMED(FUTEX_REQUEUE),
    MOSIX_NAMED(FUTEX_CMP_REQUEUE),
    MOSIX_NAMED(FUTEX_WAKE_OP),
    MOSIX_NAMED(FUTEX_LOCK_PI),
    MOSIX_NAMED(FUTEX_UNLOCK_PI),
    MOSIX_NAMED(FUTEX_TRYLOCK_PI),
    MOSIX_NAMED(FUTEX_WAIT_BITSET),
    MOSIX_NAMED(FUTEX_WAKE_BITSET),
    MOSIX_NAMED(FUTEX_WAIT_REQUEUE_PI),
    MOSIX_NAMED(FUTEX_CMP_REQUEUE_PI),
    MOSIX_NAMED(FUTEX_LOCK_PI2),
    MOSIX_NAMED(FUTEX_PRIVATE_FLAG),
    MOSIX_NAMED(FUTEX_CLOCK_REALTIME),
};
constexpr NamedValue kGetrandomFlags[] = {MOSIX_NAMED(GRND_NONBLOCK), MOSIX_NAMED(GRND_RANDOM),
                                          MOSIX_NAMED(GRND_INSECURE)};
constexpr NamedValue kInotifyMask[] = {
    MOSIX_NAMED(IN_ALL_EVENTS),  MOSIX_NAMED(IN_MOVE),          MOSIX_NAMED(IN_CLOSE),
    MOSIX_NAMED(IN_ACCESS),      MOSIX_NAMED(IN_MODIFY),        MOSIX_NAMED(IN_ATTRIB),
    MOSIX_NAMED(IN_CLOSE_WRITE), MOSIX_NAMED(IN_CLOSE_NOWRITE), MOSIX_NAMED(IN_OPEN),
    MOSIX_NAMED(IN_MOVED_FROM),  MOSIX_NAMED(IN_MOVED_TO),      MOSIX_NAMED(IN_CREATE),
    MOSIX_NAMED(IN_DELETE),      MOSIX_NAMED(IN_DELETE_SELF),   MOSIX_NAMED(IN_MOVE_SELF),
    MOSIX_NAMED(IN_ONLYDIR),     MOSIX_NAMED(IN_DONT_FOLLOW),   MOSIX_NAMED(IN_EXCL_UNLINK),
    MOSIX_NAMED(IN_MASK_CREATE), MOSIX_NAMED(IN_MASK_ADD),      MOSIX_NAMED(IN_ISDIR),
    MOSIX_NAMED(IN_ONESHOT),
};
constexpr NamedValue kIpcFlags[] = {MOSIX_NAMED(IPC_CREAT), MOSIX_NAMED(IPC_EXCL), MOSIX_NAMED(IPC_NOWAIT),
                                    MOSIX_NAMED(MSG_NOERROR)};
constexpr NamedValue kItimerWhich[] = {MOSIX_NAMED(ITIMER_REAL), MOSIX_NAMED(ITIMER_VIRTUAL),
                                       MOSIX_NAMED(ITIMER_PROF)};
constexpr NamedValue kMadvise[] = {
    MOSIX_NAMED(MADV_NORMAL),          MOSIX_NAMED(MADV_RANDOM),        MOSIX_NAMED(MADV_SEQUENTIAL),
    MOSIX_NAMED(MADV_WILLNEED),        MOSIX_NAMED(MADV_DONTNEED),      MOSIX_NAMED(MADV_FREE),
    MOSIX_NAMED(MADV_REMOVE),          MOSIX_NAMED(MADV_DONTFORK),      MOSIX_NAMED(MADV_DOFORK),
    MOSIX_NAMED(MADV_MERGEABLE),       MOSIX_NAMED(MADV_UNMERGEABLE),   MOSIX_NAMED(MADV_HUGEPAGE),
    MOSIX_NAMED(MADV_NOHUGEPAGE),      MOSIX_NAMED(MADV_DONTDUMP),      MOSIX_NAMED(MADV_DODUMP),
    MOSIX_NAMED(MADV_WIPEONFORK),      MOSIX_NAMED(MADV_KEEPONFORK),    MOSIX_NAMED(MADV_COLD),
    MOSIX_NAMED(MADV_PAGEOUT),         MOSIX_NAMED(MADV_POPULATE_READ), MOSIX_NAMED(MADV_POPULATE_WRITE),
    MOSIX_NAMED(MADV_DONTNEED_LOCKED), {25, "MADV_COLLAPSE"},           MOSIX_NAMED(MADV_HWPOISON),
};
constexpr NamedValue kMembarrierCmd[] = {
    MOSIX_NAMED(MEMBARRIER_CMD_QUERY),
    MOSIX_NAMED(MEMBARRIER_CMD_GLOBAL),
    MOSIX_NAMED(MEMBARRIER_CMD_GLOBAL_EXPEDITED),
    MOSIX_NAMED(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED),
    MOSIX_NAMED(MEMBARRIER_CMD_PRIVATE_EXPEDITED),
    MOSIX_NAMED(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED),
    MOSIX_NAMED(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE),
    MOSIX_NAMED(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE),
    MOSIX_NAMED(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ),
    MOSIX_NAMED(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ),
};
constexpr NamedValue kMemfdFlags[] = {MOSIX_NAMED(MFD_CLOEXEC), MOSIX_NAMED(MFD_ALLOW_SEALING),
                                      MOSIX_NAMED(MFD_HUGETLB)};
constexpr NamedValue kMlockallFlags[] = {MOSIX_NAMED(MCL_CURRENT), MOSIX_NAMED(MCL_FUTURE),
                                         MOSIX_NAMED(MCL_ONFAULT)};
constexpr NamedValue kMmapFlags[] = {
    MOSIX_NAMED(MAP_SHARED),    MOSIX_NAMED(MAP_PRIVATE),         MOSIX_NAMED(MAP_SHARED_VALIDATE),
    MOSIX_NAMED(MAP_FIXED),     MOSIX_NAMED(MAP_ANONYMOUS),       MOSIX_NAMED(MAP_32BIT),
    MOSIX_NAMED(MAP_GROWSDOWN), MOSIX_NAMED(MAP_DENYWRITE),       MOSIX_NAMED(MAP_EXECUTABLE),
    MOSIX_NAMED(MAP_LOCKED),    MOSIX_NAMED(MAP_NORESERVE),       MOSIX_NAMED(MAP_POPULATE),
    MOSIX_NAMED(MAP_NONBLOCK),  MOSIX_NAMED(MAP_STACK),           MOSIX_NAMED(MAP_HUGETLB),
    MOSIX_NAMED(MAP_SYNC),      MOSIX_NAMED(MAP_FIXED_NOREPLACE),
};
constexpr NamedValue kMmapProt[] = {
    MOSIX_NAMED(PROT_NONE), MOSIX_NAMED(PROT_READ),      MOSIX_NAMED(PROT_WRITE),
    MOSIX_NAMED(PROT_EXEC), MOSIX_NAMED(PROT_GROWSDOWN), MOSIX_NAMED(PROT_GROWSUP),
};
constexpr NamedValue kMountFlags[] = {
    MOSIX_NAMED(MS_RDONLY),     MOSIX_NAMED(MS_NOSUID),      MOSIX_NAMED(MS_NODEV),
    MOSIX_NAMED(MS_NOEXEC),     MOSIX_NAMED(MS_SYNCHRONOUS), MOSIX_NAMED(MS_REMOUNT),
    MOSIX_NAMED(MS_MANDLOCK),   MOSIX_NAMED(MS_DIRSYNC),     MOSIX_NAMED(MS_NOATIME),
    MOSIX_NAMED(MS_NODIRATIME), MOSIX_NAMED(MS_BIND),        MOSIX_NAMED(MS_MOVE),
    MOSIX_NAMED(MS_REC),        MOSIX_NAMED(MS_SILENT),      MOSIX_NAMED(MS_POSIXACL),
    MOSIX_NAMED(MS_UNBINDABLE), MOSIX_NAMED(MS_PRIVATE),     MOSIX_NAMED(MS_SLAVE),
    MOSIX_NAMED(MS_SHARED),     MOSIX_NAMED(MS_RELATIME),    MOSIX_NAMED(MS_STRICTATIME),
    MOSIX_NAMED(MS_LAZYTIME),
};
constexpr NamedValue kMremapFlags[] = {MOSIX_NAMED(MREMAP_MAYMOVE), MOSIX_NAMED(MREMAP_FIXED),
                                       MOSIX_NAMED(MREMAP_DONTUNMAP)};
constexpr NamedValue kMsgFlags[] = {
    MOSIX_NAMED(MSG_OOB),      MOSIX_NAMED(MSG_PEEK),       MOSIX_NAMED(MSG_DONTROUTE),
    MOSIX_NAMED(MSG_CTRUNC),   MOSIX_NAMED(MSG_PROXY),      MOSIX_NAMED(MSG_TRUNC),
    MOSIX_NAMED(MSG_DONTWAIT), MOSIX_NAMED(MSG_EOR),        MOSIX_NAMED(MSG_WAITALL),
    MOSIX_NAMED(MSG_FIN),      MOSIX_NAMED(MSG_SYN),        MOSIX_NAMED(MSG_CONFIRM),
    MOSIX_NAMED(MSG_RST),      MOSIX_NAMED(MSG_ERRQUEUE),   MOSIX_NAMED(MSG_NOSIGNAL),
    MOSIX_NAMED(MSG_MORE),     MOSIX_NAMED(MSG_WAITFORONE), MOSIX_NAMED(MSG_BATCH),
    MOSIX_NAMED(MSG_ZEROCOPY), MOSIX_NAMED(MSG_FASTOPEN),   MOSIX_NAMED(MSG_CMSG_CLOEXEC),
};
constexpr NamedValue kMsyncFlags[] = {MOSIX_NAMED(MS_ASYNC), MOSIX_NAMED(MS_INVALIDATE),
                                      MOSIX_NAMED(MS_SYNC)};
constexpr NamedValue kOpenFlags[] = {
    MOSIX_NAMED(O_RDONLY),   MOSIX_NAMED(O_WRONLY),    MOSIX_NAMED(O_RDWR),    MOSIX_NAMED(O_CREAT),
    MOSIX_NAMED(O_EXCL),     MOSIX_NAMED(O_NOCTTY),    MOSIX_NAMED(O_TRUNC),   MOSIX_NAMED(O_APPEND),
    MOSIX_NAMED(O_NONBLOCK), MOSIX_NAMED(O_SYNC),      MOSIX_NAMED(O_DSYNC),   MOSIX_NAMED(O_ASYNC),
    MOSIX_NAMED(O_DIRECT),   {0100000, "O_LARGEFILE"}, MOSIX_NAMED(O_TMPFILE), MOSIX_NAMED(O_DIRECTORY),
    MOSIX_NAMED(O_NOFOLLOW), MOSIX_NAMED(O_NOATIME),   MOSIX_NAMED(O_CLOEXEC), MOSIX_NAMED(O_PATH),
};
constexpr NamedValue kPollEvents[] = {
    MOSIX_NAMED(POLLIN),     MOSIX_NAMED(POLLPRI),    MOSIX_NAMED(POLLOUT),    MOSIX_NAMED(POLLERR),
    MOSIX_NAMED(POLLHUP),    MOSIX_NAMED(POLLNVAL),   MOSIX_NAMED(POLLRDNORM), MOSIX_NAMED(POLLRDBAND),
    MOSIX_NAMED(POLLWRNORM), MOSIX_NAMED(POLLWRBAND), MOSIX_NAMED(POLLMSG),    MOSIX_NAMED(POLLRDHUP),
};
constexpr NamedValue kPriorityWhich[] = {MOSIX_NAMED(PRIO_PROCESS), MOSIX_NAMED(PRIO_PGRP),
                                         MOSIX_NAMED(PRIO_USER)};
constexpr NamedValue kPtraceRequest[] = {
    MOSIX_NAMED(PTRACE_TRACEME),    MOSIX_NAMED(PTRACE_PEEKTEXT),  MOSIX_NAMED(PTRACE_PEEKDATA),
    MOSIX_NAMED(PTRACE_PEEKUSER),   MOSIX_NAMED(PTRACE_POKETEXT),  MOSIX_NAMED(PTRACE_POKEDATA),
    MOSIX_NAMED(PTRACE_POKEUSER),   MOSIX_NAMED(PTRACE_CONT),      MOSIX_NAMED(PTRACE_KILL),
    MOSIX_NAMED(PTRACE_SINGLESTEP), MOSIX_NAMED(PTRACE_GETREGS),   MOSIX_NAMED(PTRACE_SETREGS),
    MOSIX_NAMED(PTRACE_ATTACH),     MOSIX_NAMED(PTRACE_DETACH),    MOSIX_NAMED(PTRACE_SYSCALL),
    MOSIX_NAMED(PTRACE_SETOPTIONS), MOSIX_NAMED(PTRACE_SEIZE),     MOSIX_NAMED(PTRACE_INTERRUPT),
    MOSIX_NAMED(PTRACE_LISTEN),     MOSIX_NAMED(PTRACE_GETREGSET), MOSIX_NAMED(PTRACE_SETREGSET),
};
constexpr NamedValue kResource[] = {
    MOSIX_NAMED(RLIMIT_CPU),      MOSIX_NAMED(RLIMIT_FSIZE),  MOSIX_NAMED(RLIMIT_DATA),
    MOSIX_NAMED(RLIMIT_STACK),    MOSIX_NAMED(RLIMIT_CORE),   MOSIX_NAMED(RLIMIT_RSS),
    MOSIX_NAMED(RLIMIT_NPROC),    MOSIX_NAMED(RLIMIT_NOFILE), MOSIX_NAMED(RLIMIT_MEMLOCK),
    MOSIX_NAMED(RLIMIT_AS),       MOSIX_NAMED(RLIMIT_LOCKS),  MOSIX_NAMED(RLIMIT_SIGPENDING),
    MOSIX_NAMED(RLIMIT_MSGQUEUE), MOSIX_NAMED(RLIMIT_NICE),   MOSIX_NAMED(RLIMIT_RTPRIO),
    MOSIX_NAMED(RLIMIT_RTTIME),
};
constexpr NamedValue kRusageWho[] = {MOSIX_NAMED(RUSAGE_SELF), MOSIX_NAMED(RUSAGE_CHILDREN),
                                     MOSIX_NAMED(RUSAGE_THREAD)};
constexpr NamedValue kRwfFlags[] = {MOSIX_NAMED(RWF_HIPRI), MOSIX_NAMED(RWF_DSYNC), MOSIX_NAMED(RWF_SYNC),
                                    MOSIX_NAMED(RWF_NOWAIT), MOSIX_NAMED(RWF_APPEND)};
constexpr NamedValue kSchedPolicy[] = {
    MOSIX_NAMED(SCHED_OTHER),         MOSIX_NAMED(SCHED_FIFO), MOSIX_NAMED(SCHED_RR),
    MOSIX_NAMED(SCHED_BATCH),         MOSIX_NAMED(SCHED_IDLE), MOSIX_NAMED(SCHED_DEADLINE),
    MOSIX_NAMED(SCHED_RESET_ON_FORK),
};
constexpr NamedValue kShutdownHow[] = {MOSIX_NAMED(SHUT_RD), MOSIX_NAMED(SHUT_WR), MOSIX_NAMED(SHUT_RDWR)};
constexpr NamedValue kSigactionFlags[] = {
    MOSIX_NAMED(SA_NOCLDSTOP),   MOSIX_NAMED(SA_NOCLDWAIT),    MOSIX_NAMED(SA_SIGINFO),
    {0x04000000, "SA_RESTORER"}, MOSIX_NAMED(SA_ONSTACK),      MOSIX_NAMED(SA_RESTART),
    MOSIX_NAMED(SA_NODEFER),     {0x80000000, "SA_RESETHAND"},
};
constexpr NamedValue kSigprocmaskHow[] = {MOSIX_NAMED(SIG_BLOCK), MOSIX_NAMED(SIG_UNBLOCK),
                                          MOSIX_NAMED(SIG_SETMASK)};
constexpr NamedValue kSocketDomain[] = {
    MOSIX_NAMED(AF_UNSPEC),    MOSIX_NAMED(AF_UNIX),   MOSIX_NAMED(AF_INET), MOSIX_NAMED(AF_INET6),
    MOSIX_NAMED(AF_NETLINK),   MOSIX_NAMED(AF_PACKET), MOSIX_NAMED(AF_ALG),  MOSIX_NAMED(AF_VSOCK),
    MOSIX_NAMED(AF_BLUETOOTH), MOSIX_NAMED(AF_CAN),    MOSIX_NAMED(AF_TIPC), MOSIX_NAMED(AF_XDP),
};
constexpr NamedValue kSocketType[] = {
    MOSIX_NAMED(SOCK_STREAM), MOSIX_NAMED(SOCK_DGRAM),     MOSIX_NAMED(SOCK_RAW),
    MOSIX_NAMED(SOCK_RDM),    MOSIX_NAMED(SOCK_SEQPACKET), MOSIX_NAMED(SOCK_DCCP),
    MOSIX_NAMED(SOCK_PACKET), MOSIX_NAMED(SOCK_CLOEXEC),   MOSIX_NAMED(SOCK_NONBLOCK),
};
constexpr NamedValue kSockoptLevel[] = {
    MOSIX_NAMED(SOL_SOCKET), {0, "SOL_IP"},      {6, "SOL_TCP"},    {17, "SOL_UDP"},
    {41, "SOL_IPV6"},        {58, "SOL_ICMPV6"}, {132, "SOL_SCTP"}, {263, "SOL_PACKET"},
    {270, "SOL_NETLINK"},    {279, "SOL_ALG"},   {282, "SOL_TLS"},
};
constexpr NamedValue kSpliceFlags[] = {MOSIX_NAMED(SPLICE_F_MOVE), MOSIX_NAMED(SPLICE_F_NONBLOCK),
                                       MOSIX_NAMED(SPLICE_F_MORE), MOSIX_NAMED(SPLICE_F_GIFT)};
constexpr NamedValue kStatxMask[] = {
    MOSIX_NAMED(STATX_ALL),     MOSIX_NAMED(STATX_BASIC_STATS), MOSIX_NAMED(STATX_TYPE),
    MOSIX_NAMED(STATX_MODE),    MOSIX_NAMED(STATX_NLINK),       MOSIX_NAMED(STATX_UID),
    MOSIX_NAMED(STATX_GID),     MOSIX_NAMED(STATX_ATIME),       MOSIX_NAMED(STATX_MTIME),
    MOSIX_NAMED(STATX_CTIME),   MOSIX_NAMED(STATX_INO),         MOSIX_NAMED(STATX_SIZE),
    MOSIX_NAMED(STATX_BLOCKS),  MOSIX_NAMED(STATX_BTIME),       {0x1000, "STATX_MNT_ID"},
    {0x2000, "STATX_DIOALIGN"},
};
constexpr NamedValue kTimerFlags[] = {MOSIX_NAMED(TIMER_ABSTIME)};
constexpr NamedValue kUmountFlags[] = {
    {1, "MNT_FORCE"}, {2, "MNT_DETACH"}, {4, "MNT_EXPIRE"}, {8, "UMOUNT_NOFOLLOW"}};
constexpr NamedValue kUnlinkatFlags[] = {MOSIX_NAMED(AT_REMOVEDIR)};
constexpr NamedValue kWaitIdtype[] = {MOSIX_NAMED(P_ALL), MOSIX_NAMED(P_PID), MOSIX_NAMED(P_PGID),
                                      MOSIX_NAMED(P_PIDFD)};
constexpr NamedValue kWaitOptions[] = {
    MOSIX_NAMED(WNOHANG), MOSIX_NAMED(WUNTRACED),      MOSIX_NAMED(WEXITED),   MOSIX_NAMED(WCONTINUED),
    MOSIX_NAMED(WNOWAIT), {0x20000000, "__WNOTHREAD"}, {0x40000000, "__WALL"}, {0x80000000, "__WCLONE"},
};
constexpr NamedValue kWhence[] = {MOSIX_NAMED(SEEK_SET), MOSIX_NAMED(SEEK_CUR), MOSIX_NAMED(SEEK_END),
                                  MOSIX_NAMED(SEEK_DATA), MOSIX_NAMED(SEEK_HOLE)};

struct FlagSet {
  std::string_view name;
  std::span<const NamedValue> values;
  uint64_t enumeration = 0;  ///< bits in which one value excludes the others
};

constexpr FlagSet kFlagSets[] = {
    {"access_mode", kAccessMode},
    {"at_flags", kAtFlags},
    {"clock_id", kClockId, kEnumeration},
    {"clone_flags", kCloneFlags},
    {"close_range_flags", kCloseRangeFlags},
    {"epoll_events", kEpollEvents},
    {"epoll_op", kEpollOp, kEnumeration},
    {"fadvise", kFadvise, kEnumeration},
    {"fallocate_mode", kFallocateMode},
    {"fd_cloexec", kFdCloexec},
    {"fd_flags", kFdFlags},
    {"flock_op", kFlockOp},
    {"futex_op", kFutexOp, 0x7f},
    {"getrandom_flags", kGetrandomFlags},
    {"inotify_mask", kInotifyMask},
    {"ipc_flags", kIpcFlags},
    {"itimer_which", kItimerWhich, kEnumeration},
    {"madvise", kMadvise, kEnumeration},
    {"membarrier_cmd", kMembarrierCmd, kEnumeration},
    {"memfd_flags", kMemfdFlags},
    {"mlockall_flags", kMlockallFlags},
    {"mmap_flags", kMmapFlags, 0xf},
    {"mmap_prot", kMmapProt},
    {"mount_flags", kMountFlags},
    {"mremap_flags", kMremapFlags},
    {"msg_flags", kMsgFlags},
    {"msync_flags", kMsyncFlags},
    {"open_flags", kOpenFlags, O_ACCMODE},
    {"poll_events", kPollEvents},
    {"priority_which", kPriorityWhich, kEnumeration},
    {"ptrace_request", kPtraceRequest, kEnumeration},
    {"resource", kResource, kEnumeration},
    {"rusage_who", kRusageWho, kEnumeration},
    {"rwf_flags", kRwfFlags},
    {"sched_policy", kSchedPolicy, 0xff},
    {"shutdown_how", kShutdownHow, kEnumeration},
    {"sigaction_flags", kSigactionFlags},
    {"sigprocmask_how", kSigprocmaskHow, kEnumeration},
    {"socket_domain", kSocketDomain, kEnumeration},
    {"socket_type", kSocketType, 0xf},
    {"sockopt_level", kSockoptLevel, kEnumeration},
    {"splice_flags", kSpliceFlags},
    {"statx_mask", kStatxMask},
    {"timer_flags", kTimerFlags},
    {"umount_flags", kUmountFlags},
    {"unlinkat_flags", kUnlinkatFlags},
    {"wait_idtype", kWaitIdtype, kEnumeration},
    {"wait_options", kWaitOptions},
    {"whence", kWhence, kEnumeration},
};

const FlagSet* find_set(std::string_view name) {
  const auto* found = std::find_if(std::begin(kFlagSets), std::end(kFlagSets),
                                   [&](const FlagSet& set) { return set.name == name; });
  return found == std::end(kFlagSets) ? nullptr : found;
}

std::string enumerated(const FlagSet& set, uint64_t value) {
  const auto found = std::find_if(set.values.begin(), set.values.end(), [&](const NamedValue& named) {
    return (named.value & ~set.enumeration) == 0 && named.value == value;
  });
  if (found != set.values.end()) return std::string(found->name);
  return set.enumeration == kEnumeration ? number_text(value) : fmt::format("{:#x}", value);
}

std::string flags_text(const FlagSet& set, uint64_t value) {
  if (set.enumeration == kEnumeration) {
    // Of an int the kernel ignores what is above 32 bits; RUSAGE_CHILDREN is -1.
    const auto found = enumerated(set, value);
    const auto as_int = static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value)));
    return found == number_text(value) ? enumerated(set, as_int) : found;
  }
  std::string text;
  if (set.enumeration != 0) text = enumerated(set, value & set.enumeration);
  uint64_t left = value & ~set.enumeration;
  const auto add = [&](std::string_view name) {
    if (!text.empty()) text += '|';
    text += name;
  };
  for (const NamedValue& named : set.values) {
    if (named.value == 0 && value == 0 && text.empty()) return std::string(named.name);
    if (named.value == 0 || (named.value & ~set.enumeration) == 0 || (left & named.value) != named.value)
      continue;
    add(named.name);
    left &= ~named.value;
  }
  if (left != 0) add(fmt::format("{:#x}", left));
  return text.empty() ? "0" : text;
}

/// clone's flags have the signal of the child's death in their low byte.
std::string clone_flags_text(uint64_t value) {
  constexpr uint64_t kSignalBits = 0xff;
  const int signal = static_cast<int>(value & kSignalBits);
  const std::string flags = flags_text(*find_set("clone_flags"), value & ~kSignalBits);
  if (signal == 0) return flags;
  return (value & ~kSignalBits) == 0 ? signal_name(signal) : flags + "|" + signal_name(signal);
}

}  // namespace

bool is_flags_name(std::string_view decode) {
  return decode == "mode" || decode == "signal" || find_set(decode) != nullptr;
}

std::string format_flags(std::string_view decode, uint64_t value) {
  if (decode == "mode") return value == 0 ? "0" : fmt::format("0{:o}", value);
  if (decode == "signal") return signal_name(static_cast<int>(value));
  if (decode == "clone_flags") return clone_flags_text(value);
  const FlagSet* set = find_set(decode);
  return set == nullptr ? fmt::format("{:#x}", value) : flags_text(*set, value);
}

}  // namespace mosix
