// The table against the kernel: calls are made natively, with every buffer exactly as large as its row says
// and ending at an unmapped page. So a size that is too small is EFAULT where the call succeeds with room to
// spare; and the bytes that the kernel leaves alone, found by filling the buffers in two ways, are exactly
// those that the row says it leaves alone.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <arpa/inet.h>
#include <asm/prctl.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/openat2.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libmosix/arch/x86_64/syscall_numbers.h"
#include "libmosix/syscalls/table.h"
#include "tests/unit/native_probe.h"

using namespace mosix;
using namespace mosix::native;

namespace {

/// Descriptors that a test case opens, also by its probes, are closed at its end.
class Descriptors {
 public:
  Descriptors() : first_(fcntl(0, F_DUPFD, 3)) { close(first_); }
  ~Descriptors() { syscall(__NR_close_range, first_, ~0u, 0); }

 private:
  int first_;
};

constexpr size_t kSigsetBytes = 8;

/// A directory with a file in it.
class Directory {
 public:
  Directory() {
    char name[] = "/tmp/mosix-native-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
    file_ = path_ + "/file";
    const int fd = open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(write(fd, "twenty bytes of text", 20) == 20);
    close(fd);
  }
  ~Directory() {
    unlink(file_.c_str());
    rmdir(path_.c_str());
  }
  const char* path() const { return path_.c_str(); }
  const char* file() const { return file_.c_str(); }

 private:
  std::string path_;
  std::string file_;
};

int inotify_fd() {
  static const int fd = inotify_init1(IN_CLOEXEC);
  return fd;
}

/// Objects of System V that go away with the test case, also when it fails.
struct SystemVObjects {
  int queue = msgget(IPC_PRIVATE, 0600);
  int semaphores = semget(IPC_PRIVATE, 2, 0600);
  int segment = shmget(IPC_PRIVATE, 4096, 0600);
  SystemVObjects() = default;
  SystemVObjects(const SystemVObjects&) = delete;
  ~SystemVObjects() {
    msgctl(queue, IPC_RMID, nullptr);
    semctl(semaphores, 0, IPC_RMID);
    shmctl(segment, IPC_RMID, nullptr);
  }
};

struct flock flock_of(int type) {
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  return lock;
}

void drain_connections(int listener) {
  for (int fd = 0; fd >= 0;) {
    fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd >= 0) close(fd);
  }
}

// Of kernel headers that quarrel with libc's.
constexpr uint64_t TCGETS2_ = 0x802c542a;
constexpr uint64_t TCSETS2_ = 0x402c542b;
constexpr uint64_t FIGETBSZ_ = 2;
constexpr uint64_t FS_IOC_GETFLAGS_ = 0x80086601;
constexpr uint64_t RNDGETENTCNT_ = 0x80045200;
constexpr uint64_t NS_GET_NSTYPE_ = 0xb703;
constexpr uint64_t NS_GET_OWNER_UID_ = 0xb704;

bool setxattr_once(const char* file) { return setxattr(file, "user.probe", "value", 5, 0) == 0; }

}  // namespace

TEST_CASE("files and directories") {
  Descriptors descriptors;
  Directory directory;
  const char* file = directory.file();
  const int fd = open(file, O_RDWR | O_CLOEXEC);
  const int dir = open(directory.path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  REQUIRE(dir >= 0);
  const auto rewind = [&] { lseek(fd, 0, SEEK_SET), lseek(dir, 0, SEEK_SET); };

  check(__NR_open, {file, O_RDONLY, 0});
  check(__NR_open, {"/nonexistent", O_RDONLY, 0}, {.fails = true});
  check(__NR_openat, {AT_FDCWD, file, O_RDONLY, 0});
  check(__NR_openat2, {AT_FDCWD, file, holding(open_how{.flags = O_RDONLY}), sizeof(open_how)});
  check(__NR_stat, {file, room()});
  check(__NR_stat, {"/nonexistent", room()}, {.fails = true});
  check(__NR_lstat, {file, room()});
  check(__NR_fstat, {fd, room()});
  check(__NR_newfstatat, {AT_FDCWD, file, room(), 0});
  check(__NR_statx, {AT_FDCWD, file, 0, STATX_BASIC_STATS, room()});
  check(__NR_statfs, {file, room()});
  check(__NR_fstatfs, {fd, room()});
  check(__NR_access, {file, R_OK});
  check(__NR_faccessat2, {AT_FDCWD, file, R_OK, 0});
  check(__NR_chmod, {file, 0640});
  check(__NR_utime, {file, holding(std::array<int64_t, 2>{1, 2})});
  check(__NR_utimes, {file, holding(std::array<timeval, 2>{})});
  check(__NR_futimesat, {AT_FDCWD, file, holding(std::array<timeval, 2>{})});
  check(__NR_utimensat, {AT_FDCWD, file, holding(std::array<timespec, 2>{}), 0});
  check(__NR_read, {fd, room(), 20}, {.before = rewind});
  check(__NR_read, {fd, room(), 100}, {.before = rewind});
  check(__NR_pread64, {fd, room(), 100, 5});
  check(__NR_write, {fd, "twenty bytes", 12}, {.before = rewind});
  check(__NR_pwrite64, {fd, "twenty bytes", 12, 0});
  check(__NR_getdents64, {dir, room(), 4096}, {.before = rewind, .has_gaps = true});
  check(__NR_getdents, {dir, room(), 4096}, {.before = rewind, .has_gaps = true});
  check(__NR_getcwd, {room(), 4096});
  check(__NR_getcwd, {room(), 1}, {.fails = true});
  check(__NR_readlink, {"/proc/self/exe", room(), 4096});
  check(__NR_readlinkat, {AT_FDCWD, "/proc/self/exe", room(), 4});
  check(__NR_truncate, {file, 20});
  check(__NR_flock, {fd, 8});
  check(__NR_fadvise64, {fd, 0, 20, 0});
  check(__NR_memfd_create, {"probe", 0});
  check(__NR_inotify_add_watch, {inotify_fd(), file, 1});
  check(__NR_listxattr, {file, room(), 4096});
  check(__NR_getxattr, {file, "user.none", room(), 64}, {.fails = true});
  check(__NR_cachestat, {fd, holding(std::array<uint64_t, 2>{0, 4096}), room(), 0});
  check(__NR_file_getattr, {AT_FDCWD, file, room(), 24, 0});
  check(__NR_listmount, {holding(std::array<uint64_t, 4>{32, ~uint64_t{0}, 0, 0}), room(), 4, 0},
        {.reads_less = true});
  const auto mark = [&] { setxattr_once(file); };
  if (setxattr_once(file)) {
    check(__NR_setxattr, {file, "user.probe", "value", 5, 0});
    check(__NR_getxattr, {file, "user.probe", room(), 64}, {.before = mark});
    check(__NR_fgetxattr, {fd, "user.probe", room(), 3}, {.fails = true});
    check(__NR_listxattr, {file, room(), 64}, {.before = mark});
  }
}

TEST_CASE("descriptors, polling and transfers") {
  Descriptors descriptors;
  Directory directory;
  int pipe_fds[2];
  REQUIRE(pipe2(pipe_fds, O_CLOEXEC) == 0);
  const int reading = pipe_fds[0];
  const int writing = pipe_fds[1];
  REQUIRE(write(writing, "x", 1) == 1);
  const std::vector<pollfd> both = {{reading, POLLIN, 0}, {writing, POLLOUT, 0}};
  const auto set = [&](int fd) {
    std::vector<uint64_t> bits(2);
    bits[fd / 64] |= uint64_t{1} << (fd % 64);
    return holding_all(bits);
  };

  check(__NR_pipe, {room()});
  check(__NR_pipe2, {room(), O_CLOEXEC});
  check(__NR_poll, {holding_all(both), 2, 0});
  check(__NR_ppoll, {holding_all(both), 2, holding(timespec{}), holding(uint64_t{0}), kSigsetBytes});
  check(__NR_select, {100, set(reading), set(writing), room(), holding(timeval{})});
  check(__NR_select, {reading + 1, set(reading), 0, 0, holding(timeval{})});
  check(__NR_pselect6, {100, set(reading), set(writing), room(), holding(timespec{}),
                        holding(std::array<uint64_t, 2>{0, 8})});

  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const epoll_event event{.events = EPOLLIN, .data = {.u64 = 7}};
  const auto forget = [&] { epoll_ctl(epoll, EPOLL_CTL_DEL, reading, nullptr); };
  check(__NR_epoll_ctl, {epoll, EPOLL_CTL_ADD, reading, holding(event)}, {.before = forget});
  REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, reading, const_cast<epoll_event*>(&event)) == 0);
  check(__NR_epoll_ctl, {epoll, EPOLL_CTL_MOD, reading, holding(event)});
  check(__NR_epoll_wait, {epoll, room(), 4, 0});
  check(__NR_epoll_pwait, {epoll, room(), 4, 0, holding(uint64_t{0}), kSigsetBytes});
  check(__NR_epoll_pwait2, {epoll, room(), 4, holding(timespec{}), holding(uint64_t{0}), kSigsetBytes});

  check(__NR_signalfd4, {-1, holding(uint64_t{0}), kSigsetBytes, 0});
  check(__NR_signalfd, {-1, holding(uint64_t{0}), kSigsetBytes});
  const int timer = static_cast<int>(syscall(__NR_timerfd_create, CLOCK_MONOTONIC, 0));
  check(__NR_timerfd_settime, {timer, 0, holding(itimerspec{}), room()});
  check(__NR_timerfd_gettime, {timer, room()});

  const int file = open(directory.file(), O_RDWR | O_CLOEXEC);
  const int other = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  REQUIRE(file >= 0);
  REQUIRE(other >= 0);
  check(__NR_sendfile, {other, file, holding(int64_t{0}), 5});
  check(__NR_copy_file_range, {file, holding(int64_t{0}), other, holding(int64_t{0}), 5, 0});
  const auto drain = [&] {
    char rest[64];
    fcntl(reading, F_SETFL, O_NONBLOCK);
    while (read(reading, rest, sizeof(rest)) > 0) {
    }
  };
  check(__NR_splice, {file, holding(int64_t{0}), writing, 0, 5, 0}, {.before = drain});
  const auto refill = [&] {
    drain();
    REQUIRE(write(writing, "abc", 3) == 3);
  };
  check(__NR_read, {reading, room(), 10}, {.before = refill});
  check(__NR_read, {reading, room(), 10}, {.before = drain, .fails = true});

  check(__NR_fcntl, {file, F_GETLK, holding(flock_of(F_WRLCK))});
  check(__NR_fcntl, {file, F_SETLK, holding(flock_of(F_WRLCK))});
  check(__NR_fcntl, {file, F_SETLKW, holding(flock_of(F_UNLCK))});
  check(__NR_fcntl, {file, F_OFD_GETLK, holding(flock_of(F_WRLCK))});
  check(__NR_fcntl, {file, F_OFD_SETLK, holding(flock_of(F_WRLCK))});
  check(__NR_fcntl, {file, F_SETOWN_EX, holding(f_owner_ex{F_OWNER_PID, getpid()})});
  check(__NR_fcntl, {file, F_GETOWN_EX, room()});
  check(__NR_fcntl, {file, 17, room()});  // F_GETOWNER_UIDS
  check(__NR_fcntl, {file, F_GET_RW_HINT, room()});
  check(__NR_fcntl, {file, F_SET_RW_HINT, holding(uint64_t{0})});
  check(__NR_fcntl, {file, F_GETFL});
  check(__NR_fcntl, {reading, F_GETPIPE_SZ});
}

TEST_CASE("terminals") {
  Descriptors descriptors;
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(master >= 0);
  check(__NR_ioctl, {master, TIOCSPTLCK, holding(0)});
  check(__NR_ioctl, {master, TIOCGPTN, room()});
  check(__NR_ioctl, {master, TIOCGPTLCK, room()});
  check(__NR_ioctl, {master, TIOCGPTPEER, O_RDWR | O_NOCTTY});
  check(__NR_ioctl, {master, TIOCPKT, holding(0)});
  check(__NR_ioctl, {master, TIOCGPKT, room()});
  const int tty = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
  REQUIRE(tty >= 0);

  std::vector<uint8_t> settings(64);
  REQUIRE(ioctl(tty, TCGETS2_, settings.data()) == 0);
  for (uint64_t command : {uint64_t{TCGETS}, TCGETS2_, uint64_t{TCGETA}, uint64_t{TIOCGLCKTRMIOS}})
    check(__NR_ioctl, {tty, command, room()});
  for (uint64_t command : {uint64_t{TCSETS}, uint64_t{TCSETSW}, uint64_t{TCSETSF}, TCSETS2_, TCSETS2_ + 1})
    check(__NR_ioctl, {tty, command, Input(settings)});
  check(__NR_ioctl, {tty, TIOCGWINSZ, room()});
  check(__NR_ioctl, {tty, TIOCSWINSZ, holding(winsize{24, 80, 0, 0})});
  check(__NR_ioctl, {tty, TIOCOUTQ, room()});
  check(__NR_ioctl, {tty, FIONREAD, room()});
  check(__NR_ioctl, {tty, TIOCGETD, room()});
  check(__NR_ioctl, {tty, TIOCGEXCL, room()});
  check(__NR_ioctl, {tty, TIOCGDEV, room()});
  check(__NR_ioctl, {tty, FIONBIO, holding(0)});
  check(__NR_ioctl, {tty, FIOASYNC, holding(0)});
  check(__NR_ioctl, {tty, TIOCGPGRP, room()}, {.fails = true});
  check(__NR_ioctl, {tty, TCFLSH, TCIOFLUSH});
  check(__NR_ioctl, {tty, TCSBRK, 1});
  check(__NR_ioctl, {tty, FIOCLEX});

  Directory directory;
  const int file = open(directory.file(), O_RDWR | O_CLOEXEC);
  check(__NR_ioctl, {file, TCGETS, room()}, {.fails = true});
  check(__NR_ioctl, {file, FIONREAD, room()});
  check(__NR_ioctl, {file, FIGETBSZ_, room()});
  const int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  check(__NR_ioctl, {random, RNDGETENTCNT_, room()});
  const int space = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);
  check(__NR_ioctl, {space, NS_GET_NSTYPE_});
  check(__NR_ioctl, {space, NS_GET_OWNER_UID_, room()});
}

TEST_CASE("the flags of an inode are an int, whatever their ioctl's number says") {
  Descriptors descriptors;
  for (const char* where : {"/tmp", "/", "/var/tmp", "/dev/shm"}) {
    const int dir = open(where, O_RDONLY | O_CLOEXEC);
    if (dir < 0 || syscall(__NR_ioctl, dir, FS_IOC_GETFLAGS_, std::vector<int>(8).data()) != 0) continue;
    check(__NR_ioctl, {dir, FS_IOC_GETFLAGS_, room()});
    return;
  }
  MESSAGE("skipped: no file system here has flags of inodes");
}

TEST_CASE("sockets and their options") {
  Descriptors descriptors;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(listen(listener, 64) == 0);
  socklen_t length = sizeof(address);
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  int client = -1;
  const auto fresh = [&] {
    if (client >= 0) close(client);
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(dup3(client, 100, O_CLOEXEC) == 100);
  };
  const auto connected = [&] {
    fresh();
    REQUIRE(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  };
  fresh();

  check(__NR_socketpair, {AF_UNIX, SOCK_STREAM, 0, room()});
  check(__NR_connect, {100, holding(address), sizeof(address)}, {.before = fresh});
  check(__NR_bind, {100, holding(sockaddr_in{.sin_family = AF_INET}), sizeof(sockaddr_in)},
        {.before = fresh});
  for (uint32_t capacity : {0u, 4u, 16u, 128u}) {
    check(__NR_getsockname, {listener, room(), holding(capacity)});
    check(__NR_accept, {listener, room(), holding(capacity)}, {.before = connected});
    check(__NR_accept4, {listener, room(), holding(capacity), SOCK_CLOEXEC}, {.before = connected});
    check(__NR_getpeername, {100, room(), holding(capacity)}, {.before = connected});
  }
  check(__NR_accept, {listener, room(), holding(16u)},
        {.before = [&] { drain_connections(listener); }, .fails = true});
  check(__NR_getpeername, {listener, room(), holding(16u)}, {.fails = true});

  const int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in own = address;
  own.sin_port = 0;
  REQUIRE(bind(datagram, reinterpret_cast<sockaddr*>(&own), sizeof(own)) == 0);
  length = sizeof(own);
  REQUIRE(getsockname(datagram, reinterpret_cast<sockaddr*>(&own), &length) == 0);
  const auto send_one = [&] {
    char rest[64];
    while (recv(datagram, rest, sizeof(rest), MSG_DONTWAIT) >= 0) {
    }
    REQUIRE(sendto(datagram, "hello", 5, 0, reinterpret_cast<sockaddr*>(&own), sizeof(own)) == 5);
  };
  check(__NR_sendto, {datagram, "hello", 5, 0, holding(own), sizeof(own)});
  check(__NR_recvfrom, {datagram, room(), 64, 0, room(), holding(16u)}, {.before = send_one});
  check(__NR_recvfrom, {datagram, room(), 2, MSG_TRUNC, room(), holding(128u)}, {.before = send_one});
  check(__NR_recvfrom, {datagram, room(), 64, 0, 0, 0}, {.before = send_one});

  for (int option : {SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_LINGER, SO_RCVTIMEO, SO_DOMAIN, SO_REUSEADDR,
                     SO_PEERCRED, SO_ACCEPTCONN, SO_COOKIE, SO_MEMINFO, SO_ZEROCOPY}) {
    check(__NR_getsockopt, {listener, SOL_SOCKET, option, room(), holding(64u)});
    check(__NR_getsockopt, {listener, SOL_SOCKET, option, room(), holding(2u)},
          {.fails = option == SO_COOKIE});
  }
  check(__NR_getsockopt, {client, IPPROTO_TCP, TCP_INFO, room(), holding(512u)});
  check(__NR_getsockopt, {client, IPPROTO_TCP, TCP_CONGESTION, room(), holding(16u)});
  check(__NR_getsockopt, {client, SOL_SOCKET, 4711, room(), holding(16u)}, {.fails = true});
  check(__NR_setsockopt, {client, SOL_SOCKET, SO_REUSEADDR, holding(1), 4});
  check(__NR_setsockopt, {client, SOL_SOCKET, SO_LINGER, holding(linger{}), sizeof(linger)});
  check(__NR_setsockopt, {client, SOL_SOCKET, SO_RCVTIMEO, holding(timeval{}), sizeof(timeval)});
  check(__NR_setsockopt, {client, IPPROTO_TCP, TCP_NODELAY, holding(1), 4});

  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  check(__NR_getsockopt, {pair[0], SOL_SOCKET, SO_PEERCRED, room(), holding(12u)});
  check(__NR_getsockopt, {pair[0], SOL_SOCKET, 77, room(), holding(4u)});  // SO_PEERPIDFD

  ifreq loopback{};
  strcpy(loopback.ifr_name, "lo");
  for (int command : {SIOCGIFINDEX, SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFTXQLEN})
    check(__NR_ioctl, {datagram, command, holding(loopback)});
  check(__NR_ioctl, {client, SIOCATMARK, room()});
}

TEST_CASE("processes, limits and scheduling") {
  Descriptors descriptors;
  check(__NR_getresuid, {room(), room(), room()});
  check(__NR_getresgid, {room(), room(), room()});
  check(__NR_getgroups, {64, room()});
  check(__NR_getgroups, {0, room()});
  check(__NR_capget, {holding(__user_cap_header_struct{_LINUX_CAPABILITY_VERSION_3, 0}), room()});
  check(__NR_capget, {holding(__user_cap_header_struct{1, 0}), room()}, {.fails = true});
  check(__NR_getrlimit, {RLIMIT_NOFILE, room()});
  rlimit core{};
  REQUIRE(getrlimit(RLIMIT_CORE, &core) == 0);
  check(__NR_setrlimit, {RLIMIT_CORE, holding(core)});
  check(__NR_prlimit64, {0, RLIMIT_CORE, holding(core), room()});
  check(__NR_getrusage, {RUSAGE_SELF, room()});
  check(__NR_times, {room()});
  check(__NR_sched_getparam, {0, room()});
  check(__NR_sched_setscheduler, {0, SCHED_OTHER, holding(0)});
  check(__NR_sched_setparam, {0, holding(0)});
  check(__NR_sched_rr_get_interval, {0, room()});
  check(__NR_sched_getattr, {0, room(), 56, 0});
  check(__NR_sched_getaffinity, {0, 128, room()});
  cpu_set_t processors;
  REQUIRE(sched_getaffinity(0, sizeof(processors), &processors) == 0);
  check(__NR_sched_setaffinity, {0, sizeof(processors), holding(processors)}, {.reads_less = true});
  check(__NR_prctl, {PR_SET_NAME, "probe"});
  check(__NR_prctl, {PR_SET_NAME, "a name that is too long"});
  check(__NR_prctl, {PR_GET_NAME, room()});
  check(__NR_prctl, {PR_GET_PDEATHSIG, room()});
  check(__NR_prctl, {PR_GET_CHILD_SUBREAPER, room()});
  check(__NR_prctl, {PR_GET_TSC, room()});
  check(__NR_prctl, {0x41555856, room(), 1024, 0, 0});  // PR_GET_AUXV
  check(__NR_prctl, {0x41555856, room(), 32, 0, 0});
  check(__NR_arch_prctl, {0x1021, room()});  // ARCH_GET_XCOMP_SUPP
  check(__NR_kcmp, {getpid(), getpid(), KCMP_FILES, 0, 0});
  check(__NR_get_mempolicy, {room(), room(), 1024, 0, 0});

  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(3);
  siginfo_t info{};
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  check(__NR_waitid, {P_PID, child, room(), WEXITED | WNOWAIT, room()});
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  check(__NR_waitid, {P_PID, child, room(), WEXITED | WNOWAIT, room()}, {.fails = true});
  check(__NR_wait4, {child, room(), WNOHANG, room()}, {.fails = true});
}

TEST_CASE("signals, clocks and timers") {
  check(__NR_rt_sigaction, {SIGUSR2, 0, room(), kSigsetBytes});
  const std::array<uint64_t, 4> ignore = {1, 0, 0, 0};
  check(__NR_rt_sigaction, {SIGUSR2, holding(ignore), room(), kSigsetBytes});
  check(__NR_rt_sigprocmask, {SIG_BLOCK, holding(uint64_t{0}), room(), kSigsetBytes});
  check(__NR_rt_sigpending, {room(), kSigsetBytes});
  check(__NR_rt_sigtimedwait,
        {holding(uint64_t{1} << (SIGUSR1 - 1)), room(), holding(timespec{}), kSigsetBytes}, {.fails = true});
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigset_t old;
  REQUIRE(sigprocmask(SIG_BLOCK, &usr1, &old) == 0);
  check(__NR_rt_sigtimedwait,
        {holding(uint64_t{1} << (SIGUSR1 - 1)), room(), holding(timespec{}), kSigsetBytes},
        {.before = [] { raise(SIGUSR1); }});
  ::signal(SIGUSR1, SIG_IGN);  // what the failing runs have left pending
  REQUIRE(sigprocmask(SIG_SETMASK, &old, nullptr) == 0);
  ::signal(SIGUSR1, SIG_DFL);

  check(__NR_nanosleep, {holding(timespec{0, 1000}), room()});
  check(__NR_nanosleep, {holding(timespec{-1, 0}), room()}, {.fails = true});
  check(__NR_clock_nanosleep, {CLOCK_MONOTONIC, 0, holding(timespec{0, 1000}), room()});
  check(__NR_clock_gettime, {CLOCK_PROCESS_CPUTIME_ID, room()});
  check(__NR_clock_gettime, {CLOCK_THREAD_CPUTIME_ID, room()});
  check(__NR_adjtimex, {holding(timex{})});
  check(__NR_clock_adjtime, {CLOCK_REALTIME, holding(timex{})});
  check(__NR_getitimer, {ITIMER_VIRTUAL, room()});
  check(__NR_setitimer, {ITIMER_VIRTUAL, holding(itimerval{}), room()});
  sigevent silent{};
  silent.sigev_notify = SIGEV_NONE;
  check(__NR_timer_create, {CLOCK_MONOTONIC, holding(silent), room()});
  int timer = 0;
  REQUIRE(syscall(__NR_timer_create, CLOCK_MONOTONIC, &silent, &timer) == 0);
  check(__NR_timer_settime, {timer, 0, holding(itimerspec{}), room()});
  check(__NR_timer_gettime, {timer, room()});
}

TEST_CASE("an interrupted poll has written its revents, an interrupted sleep its rest") {
  // The two arguments whose rows say that they come back after an error.
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) {};
  REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
  sigset_t usr1;
  sigset_t old;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  REQUIRE(sigprocmask(SIG_BLOCK, &usr1, &old) == 0);
  int pipe_fds[2];
  REQUIRE(pipe2(pipe_fds, O_CLOEXEC) == 0);
  raise(SIGUSR1);
  pollfd waiting{pipe_fds[0], POLLIN, 0x7777};
  timespec long_time{1000, 0};
  const uint64_t nothing_blocked = 0;
  CHECK(syscall(__NR_ppoll, &waiting, 1, &long_time, &nothing_blocked, kSigsetBytes) == -1);
  CHECK(errno == EINTR);
  CHECK(waiting.revents == 0);
  CHECK(long_time.tv_sec < 1000);
  CHECK(syscall_row(__NR_poll).args[0].out_on_error);
  CHECK(syscall_row(__NR_ppoll).args[0].out_on_error);
  CHECK(syscall_row(__NR_ppoll).args[2].out_on_error);
  CHECK(syscall_row(__NR_nanosleep).args[1].out_on_error);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  REQUIRE(sigprocmask(SIG_SETMASK, &old, nullptr) == 0);
  REQUIRE(sigaction(SIGUSR1, &before, nullptr) == 0);
}

TEST_CASE("System V queues, semaphores, segments") {
  const SystemVObjects objects;
  const int queue = objects.queue;
  const int semaphores = objects.semaphores;
  const int segment = objects.segment;
  REQUIRE(queue >= 0);
  REQUIRE(semaphores >= 0);
  REQUIRE(segment >= 0);
  struct Message {
    long type = 1;
    char text[5] = {'h', 'e', 'l', 'l', 'o'};
  } __attribute__((packed));
  const auto empty = [&] {
    char buffer[64];
    while (msgrcv(queue, buffer, 32, 0, IPC_NOWAIT) >= 0) {
    }
  };
  const auto one = [&] {
    empty();
    const Message message;
    REQUIRE(msgsnd(queue, &message, sizeof(message.text), 0) == 0);
  };
  check(__NR_msgsnd, {queue, holding(Message{}), 5, 0}, {.before = empty});
  check(__NR_msgrcv, {queue, room(), 32, 0, IPC_NOWAIT}, {.before = one});
  check(__NR_msgrcv, {queue, room(), 5, 0, IPC_NOWAIT}, {.before = one});
  check(__NR_msgrcv, {queue, room(), 32, 0, IPC_NOWAIT}, {.before = empty, .fails = true});
  check(__NR_msgctl, {queue, IPC_STAT, room()});
  check(__NR_msgctl, {0, IPC_INFO, room()});
  check(__NR_msgctl, {0, MSG_INFO, room()});

  check(__NR_semop, {semaphores, holding(std::array<sembuf, 2>{sembuf{0, 1, 0}, sembuf{1, 1, 0}}), 2});
  check(__NR_semtimedop, {semaphores, holding(sembuf{0, 1, 0}), 1, holding(timespec{1, 0})});
  check(__NR_semctl, {semaphores, 0, IPC_STAT, room()});
  check(__NR_semctl, {0, 0, IPC_INFO, room()});
  check(__NR_semctl, {0, 0, SEM_INFO, room()});
  check(__NR_semctl, {semaphores, 0, SETVAL, 4});
  check(__NR_semctl, {semaphores, 0, GETVAL, 0});

  shmid_ds state{};
  REQUIRE(shmctl(segment, IPC_STAT, &state) == 0);
  check(__NR_shmctl, {segment, IPC_STAT, room()});
  check(__NR_shmctl, {segment, IPC_SET, holding(state)});
  check(__NR_shmctl, {0, IPC_INFO, room()});
  check(__NR_shmctl, {0, SHM_INFO, room()});
}

TEST_CASE("POSIX queues") {
  const std::string name = "mosix-native-" + std::to_string(getpid());
  mq_attr attributes{};
  attributes.mq_maxmsg = 4;
  attributes.mq_msgsize = 64;
  const auto unlink_it = [&] { syscall(__NR_mq_unlink, name.c_str()); };
  check(__NR_mq_open, {name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600, holding(attributes)},
        {.before = unlink_it});
  unlink_it();
  const long mq =
      syscall(__NR_mq_open, name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600, &attributes);
  if (mq < 0) {
    MESSAGE("skipped: no POSIX message queues here");
    return;
  }
  const auto empty_mq = [&] {
    char buffer[64];
    while (syscall(__NR_mq_timedreceive, mq, buffer, sizeof(buffer), nullptr, nullptr) >= 0) {
    }
  };
  const auto one_mq = [&] {
    empty_mq();
    REQUIRE(syscall(__NR_mq_timedsend, mq, "hello", 5, 3, nullptr) == 0);
  };
  check(__NR_mq_timedsend, {mq, "hello", 5, 3, holding(timespec{})}, {.before = empty_mq});
  check(__NR_mq_timedreceive, {mq, room(), 64, room(), holding(timespec{})}, {.before = one_mq});
  check(__NR_mq_getsetattr, {mq, holding(mq_attr{}), room()});
  close(static_cast<int>(mq));
  unlink_it();
}

TEST_CASE("keys") {
  const long key = syscall(__NR_add_key, "user", "mosix-native", "hello", 5, -2 /* of the process */);
  if (key < 0) {
    MESSAGE("skipped: no keys here");
    return;
  }
  check(__NR_add_key, {"user", "mosix-native", "hello", 5, -2});
  check(__NR_keyctl, {11, key, room(), 64});  // KEYCTL_READ
  check(__NR_keyctl, {11, key, room(), 2});
  check(__NR_keyctl, {6, key, room(), 64});  // KEYCTL_DESCRIBE
  check(__NR_keyctl, {2, key, "world", 5});  // KEYCTL_UPDATE
  check(__NR_keyctl, {10, -2, "user", "mosix-native", 0});
  check(__NR_keyctl, {31, room(), 8});  // KEYCTL_CAPABILITIES
}

TEST_CASE("the machine") {
  check(__NR_uname, {room()});
  check(__NR_sysinfo, {room()});
  check(__NR_lsm_list_modules, {room(), holding(256u), 0});
  check(__NR_lsm_list_modules, {room(), holding(0u), 0}, {.fails = true});
}
