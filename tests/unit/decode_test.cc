// The decoder on calls that this process really makes, and on rubbish.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/decode.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <csignal>
#include <random>
#include <set>

#include "libmosix/common/unique_fd.h"
#include "tests/fakes/guest_memories.h"

using namespace mosix;
using fakes::OwnMemory;

namespace {

template <class T>
uint64_t word(T value) {
  if constexpr (std::is_null_pointer_v<T>) {
    return 0;
  } else if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<uint64_t>(value);
  } else {
    return static_cast<uint64_t>(value);
  }
}

template <class... T>
std::array<uint64_t, 6> arguments(T... values) {
  std::array<uint64_t, 6> args{};
  size_t at = 0;
  ((args[at++] = word(values)), ...);
  return args;
}

/// Makes the call and tells it.
template <class... T>
std::string told(long number, T... values) {
  OwnMemory memory;
  const auto args = arguments(values...);
  const CallText text(syscall_row(static_cast<uint64_t>(number), args), args, memory);
  int64_t result = syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
  if (result == -1) result = -errno;
  return text.begin() + "| " + text.finish(result, memory);
}

/// Tells it as if it had been made.
template <class... T>
std::string imagined(int64_t result, long number, T... values) {
  OwnMemory memory;
  const auto args = arguments(values...);
  const CallText text(syscall_row(static_cast<uint64_t>(number), args), args, memory);
  return text.begin() + text.finish(result, memory);
}

template <class... T>
std::string before(long number, T... values) {
  OwnMemory memory;
  const auto args = arguments(values...);
  return format_call(syscall_row(static_cast<uint64_t>(number), args), args, memory);
}

std::string with(const char* format, int value) {
  char text[256];
  snprintf(text, sizeof(text), format, value);
  return text;
}

}  // namespace

TEST_CASE("names of errors and signals") {
  CHECK(errno_name(ENOENT) == "ENOENT");
  CHECK(errno_name(EAGAIN) == "EAGAIN");
  CHECK(errno_name(512) == "ERESTARTSYS");
  CHECK(errno_name(516) == "ERESTART_RESTARTBLOCK");
  CHECK(errno_name(4000) == "errno 4000");
  CHECK(errno_text(ENOENT) == "No such file or directory");
  CHECK(signal_name(SIGINT) == "SIGINT");
  CHECK(signal_name(SIGCHLD) == "SIGCHLD");
  CHECK(signal_name(32) == "SIGRT_0");
  CHECK(signal_name(64) == "SIGRT_32");
  CHECK(signal_name(0) == "signal 0");
  CHECK(signal_name(65) == "signal 65");
  CHECK(signal_name(-3) == "signal -3");
}

TEST_CASE("results") {
  const SyscallRow& row = syscall_row(SYS_read);
  CHECK(format_result(row, 3) == "3");
  CHECK(format_result(row, -ENOENT) == "-1 ENOENT (No such file or directory)");
  CHECK(format_result(row, -512) == "? ERESTARTSYS (To be restarted if SA_RESTART is set)");
  CHECK(format_result(syscall_row(SYS_mmap), 0x7f0012340000) == "0x7f0012340000");
  CHECK(format_result(syscall_row(SYS_mmap), -ENOMEM) == "-1 ENOMEM (Cannot allocate memory)");
  CHECK(format_result(syscall_row(SYS_umask), 022) == "022");
  CHECK(format_result(syscall_row(SYS_exit_group), 0) == "?");
}

TEST_CASE("paths and flags") {
  CHECK(before(SYS_openat, AT_FDCWD, "/etc/motd", O_RDONLY | O_CLOEXEC) ==
        "openat(AT_FDCWD, \"/etc/motd\", O_RDONLY|O_CLOEXEC)");
  CHECK(before(SYS_openat, AT_FDCWD, "x", O_RDWR | O_CREAT | O_TRUNC, 0644) ==
        "openat(AT_FDCWD, \"x\", O_RDWR|O_CREAT|O_TRUNC, 0644)");
  CHECK(before(SYS_openat, 3, "x", O_WRONLY | O_TMPFILE, 0600) ==
        "openat(3, \"x\", O_WRONLY|O_TMPFILE, 0600)");
  CHECK(before(SYS_openat, AT_FDCWD, 16, 0x40000000) == "openat(AT_FDCWD, 0x10, O_RDONLY|0x40000000)");
  CHECK(before(SYS_openat, AT_FDCWD, nullptr, O_RDONLY) == "openat(AT_FDCWD, NULL, O_RDONLY)");
  CHECK(before(SYS_mmap, nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
        "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)");
  CHECK(
      before(SYS_mmap, nullptr, 1, PROT_NONE, MAP_SHARED, 3, 4096).find("PROT_NONE, MAP_SHARED, 3, 0x1000") !=
      std::string::npos);
  CHECK(before(SYS_kill, -1, SIGTERM) == "kill(-1, SIGTERM)");
  CHECK(before(SYS_lseek, 3, -5L, SEEK_END) == "lseek(3, -5, SEEK_END)");
  CHECK(before(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) ==
        "socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0)");
  CHECK(before(SYS_madvise, 0x1000, 4096, MADV_DONTNEED).find("MADV_DONTNEED") != std::string::npos);
  CHECK(before(SYS_getrusage, RUSAGE_CHILDREN, 0x1000).starts_with("getrusage(RUSAGE_CHILDREN, "));
  CHECK(format_flags("clone_flags", CLONE_VM | CLONE_VFORK | SIGCHLD) == "CLONE_VM|CLONE_VFORK|SIGCHLD");
  CHECK(format_flags("futex_op", 128) == "FUTEX_WAIT|FUTEX_PRIVATE_FLAG");
  CHECK(format_flags("mode", 0100644) == "0100644");
  CHECK(format_flags("no_such_set", 18) == "0x12");
  const std::string long_path = "/" + std::string(100, 'a');
  CHECK(before(SYS_chdir, long_path.c_str()) == "chdir(\"" + long_path + "\")");
}

TEST_CASE("strings: escapes and cuts") {
  CHECK(before(SYS_write, 1,
               "a\n\t\"\\\x01\xff\x01"
               "7",
               9) == R"(write(1, "a\n\t\"\\\1\377\0017", 9))");
  const std::string text(100, 'x');
  CHECK(before(SYS_write, 1, text.c_str(), 100) == "write(1, \"" + std::string(32, 'x') + "\"..., 100)");
  CHECK(before(SYS_write, 1, text.c_str(), 32) == "write(1, \"" + std::string(32, 'x') + "\", 32)");
  CHECK(before(SYS_write, 1, 16, 5) == "write(1, 0x10, 5)");
  CHECK(before(SYS_write, 1, text.c_str(), 0) == "write(1, \"\", 0)");
}

TEST_CASE("what the call fills is told after it") {
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  UniqueFd reader(fds[0]), writer(fds[1]);
  REQUIRE(write(fds[1], "hello\n", 6) == 6);
  char buffer[64];
  CHECK(told(SYS_read, fds[0], buffer, 64) == with("read(%d| , \"hello\\n\", 64) = 6", fds[0]));
  CHECK(told(SYS_read, -1, buffer, 64).find("= -1 EBADF (Bad file descriptor)") != std::string::npos);
  CHECK(told(SYS_read, -1, nullptr, 64) == "read(-1, NULL, 64| ) = -1 EBADF (Bad file descriptor)");
  struct stat status {};
  CHECK(told(SYS_stat, "/dev/null", &status) ==
        "stat(\"/dev/null\"| , {st_mode=S_IFCHR|0666, st_rdev=makedev(0x1, 0x3)}) = 0");
  int pair[2];
  const std::string piped = told(SYS_pipe2, pair, O_CLOEXEC);
  CHECK(piped ==
        "pipe2(| [" + std::to_string(pair[0]) + ", " + std::to_string(pair[1]) + "], O_CLOEXEC) = 0");
  close(pair[0]);
  close(pair[1]);
  char cwd[4096];
  REQUIRE(chdir("/usr") == 0);
  CHECK(told(SYS_getcwd, cwd, 4096) == "getcwd(| \"/usr\", 4096) = 5");
}

TEST_CASE("iovecs") {
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  UniqueFd reader(fds[0]), writer(fds[1]);
  iovec out[] = {{const_cast<char*>("abc"), 3}, {const_cast<char*>("de"), 2}};
  CHECK(told(SYS_writev, fds[1], out, 2) ==
        with("writev(%d, [{iov_base=\"abc\", iov_len=3}, {iov_base=\"de\", iov_len=2}], 2| ) = 5", fds[1]));
  char one[4], two[4], three[4];
  iovec in[] = {{one, 4}, {two, 4}, {three, 4}};
  CHECK(told(SYS_readv, fds[0], in, 3) ==
        with("readv(%d| , [{iov_base=\"abcd\", iov_len=4}, {iov_base=\"e\", "
             "iov_len=4}, {iov_base=\"\", iov_len=4}], 3) = 5",
             fds[0]));
}

TEST_CASE("waiting for many tells what changed") {
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  UniqueFd reader(fds[0]), writer(fds[1]);
  REQUIRE(write(fds[1], "x", 1) == 1);
  pollfd poll_fds[] = {{100, POLLIN, 0}};
  CHECK(told(SYS_poll, poll_fds, 1, 0) ==
        "poll([{fd=100, events=POLLIN}], 1, 0| ) = 1 (fds=[{fd=100, events=POLLIN, revents=POLLNVAL}])");
  CHECK(imagined(0, SYS_poll, nullptr, 0, uint32_t(-1)) == "poll(NULL, 0, -1) = 0");
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fds[0], &set);
  FD_SET(fds[1], &set);
  timeval timeout{0, 5000};
  const std::string text = told(SYS_select, fds[1] + 1, &set, nullptr, nullptr, &timeout);
  const std::string fd = std::to_string(fds[0]), both = fd + " " + std::to_string(fds[1]);
  CHECK(text.starts_with("select(" + std::to_string(fds[1] + 1) + ", [" + both +
                         "], NULL, NULL, {tv_sec=0, tv_usec=5000}| ) = 1 (readfds=[" + fd + "]"));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{EPOLLIN | EPOLLET, {.u64 = 0x55}};
  CHECK(told(SYS_epoll_ctl, epoll.get(), EPOLL_CTL_ADD, fds[0], &event)
            .find("EPOLL_CTL_ADD, " + fd + ", [{events=EPOLLIN|EPOLLET, data=0x55}]| ) = 0") !=
        std::string::npos);
  epoll_event ready[4];
  CHECK(told(SYS_epoll_wait, epoll.get(), ready, 4, 0)
            .ends_with("| , [{events=EPOLLIN, data=0x55}], 4, 0) = 1"));
}

TEST_CASE("sockets: addresses, lengths, messages") {
  UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(
      told(SYS_bind, socket_fd.get(), &address, sizeof(address))
          .ends_with("{sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr(\"127.0.0.1\")}, 16| ) = 0"));
  sockaddr_storage name{};
  socklen_t length = sizeof(name);
  const std::string text = told(SYS_getsockname, socket_fd.get(), &name, &length);
  CHECK(text.find("| , {sa_family=AF_INET, sin_port=htons(") != std::string::npos);
  CHECK(text.ends_with("sin_addr=inet_addr(\"127.0.0.1\")}, [128 => 16]) = 0"));
  sockaddr_un local{AF_UNIX, "/run/x"}, abstract{};
  abstract.sun_family = AF_UNIX;
  memcpy(abstract.sun_path, "\0name", 5);
  CHECK(before(SYS_connect, 3, &local, sizeof(local)) ==
        "connect(3, {sa_family=AF_UNIX, sun_path=\"/run/x\"}, 110)");
  CHECK(before(SYS_connect, 3, &abstract, 7) == "connect(3, {sa_family=AF_UNIX, sun_path=@\"name\"}, 7)");

  int pair[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
  UniqueFd a(pair[0]), b(pair[1]);
  iovec data{const_cast<char*>("abc"), 3};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &pair[0], sizeof(int));
  CHECK(
      told(SYS_sendmsg, pair[0], &message, MSG_DONTWAIT) ==
      with(
          "sendmsg(%d, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base=\"abc\", iov_len=3}], msg_iovlen=1, "
          "msg_control=[{cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[%1$d]}], "
          "msg_controllen=24}, "
          "MSG_DONTWAIT| ) = 3",
          pair[0]));
  char buffer[16];
  data = {buffer, sizeof(buffer)};
  message.msg_controllen = 0;
  CHECK(told(SYS_recvmsg, pair[1], &message, 0).find("msg_iov=[{iov_base=\"abc\", iov_len=16}]") !=
        std::string::npos);
  int value = 0;
  length = sizeof(value);
  CHECK(told(SYS_getsockopt, socket_fd.get(), SOL_SOCKET, SO_TYPE, &value, &length)
            .ends_with("SOL_SOCKET, SO_TYPE| , [2], [4]) = 0"));
}

TEST_CASE("commands have names") {
  winsize size{24, 80, 0, 0};
  CHECK(imagined(0, SYS_ioctl, 0, TIOCGWINSZ, &size) == "ioctl(0, TIOCGWINSZ, {ws_row=24, ws_col=80}) = 0");
  CHECK(before(SYS_fcntl, 1, F_SETFD, FD_CLOEXEC) == "fcntl(1, F_SETFD, FD_CLOEXEC)");
  CHECK(before(SYS_fcntl, 1, F_GETFL) == "fcntl(1, F_GETFL)");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  CHECK(before(SYS_fcntl, 1, F_SETLK, &lock) ==
        "fcntl(1, F_SETLK, {l_type=F_WRLCK, l_whence=SEEK_SET, l_start=0, l_len=0})");
  CHECK(before(SYS_prctl, PR_SET_NAME, "worker").starts_with("prctl(PR_SET_NAME, \"worker"));
  CHECK(before(SYS_ioctl, 0, 0x12345678, 0).starts_with("ioctl(0, 0x12345678"));
}

TEST_CASE("processes, signals, limits") {
  const pid_t child = fork();
  if (child == 0) _exit(7);
  int status = 0;
  CHECK(told(SYS_wait4, child, &status, 0, nullptr) ==
        with("wait4(%d| , [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], 0, NULL) = %1$d", child));
  CHECK(imagined(-EINTR, SYS_wait4, -1, &status, WNOHANG, nullptr).find(", WNOHANG, NULL) = -1 EINTR") !=
        std::string::npos);
  struct {
    uint64_t handler, flags, restorer, mask;
  } action{1, SA_RESTART | 0x04000000, 0x1234, 1 << (SIGINT - 1)};
  CHECK(
      before(SYS_rt_sigaction, SIGTERM, &action, nullptr, 8) ==
      "rt_sigaction(SIGTERM, {sa_handler=SIG_IGN, sa_mask=[INT], sa_flags=SA_RESTORER|SA_RESTART}, NULL, 8)");
  uint64_t mask = ~uint64_t{0}, few = 1 << (SIGUSR1 - 1) | 1 << (SIGCHLD - 1);
  CHECK(before(SYS_rt_sigprocmask, SIG_SETMASK, &mask, nullptr, 8) ==
        "rt_sigprocmask(SIG_SETMASK, ~[], NULL, 8)");
  CHECK(before(SYS_rt_sigprocmask, SIG_BLOCK, &few, nullptr, 8) ==
        "rt_sigprocmask(SIG_BLOCK, [USR1 CHLD], NULL, 8)");
  rlimit limit{1024, RLIM_INFINITY};
  CHECK(before(SYS_setrlimit, RLIMIT_NOFILE, &limit) ==
        "setrlimit(RLIMIT_NOFILE, {rlim_cur=1*1024, rlim_max=RLIM_INFINITY})");
  timespec request{1, 500}, rest{0, 77};
  CHECK(imagined(0, SYS_nanosleep, &request, nullptr) == "nanosleep({tv_sec=1, tv_nsec=500}, NULL) = 0");
  CHECK(imagined(-EINTR, SYS_nanosleep, &request, &rest) ==
        "nanosleep({tv_sec=1, tv_nsec=500}, {tv_sec=0, tv_nsec=77}) = -1 EINTR (Interrupted system call)");
  const char* argv[] = {"sh", "-c", "true", nullptr};
  const char* envp[] = {"A=1", "B=2", nullptr};
  CHECK(before(SYS_execve, "/bin/sh", argv, envp)
            .starts_with("execve(\"/bin/sh\", [\"sh\", \"-c\", \"true\"], 0x"));
  CHECK(before(SYS_execve, "/bin/sh", argv, envp).ends_with(" /* 2 vars */)"));
}

TEST_CASE("every decode name of the table is known") {
  std::set<std::string_view> names;
  const auto collect = [&](const SyscallRow& row) {
    for (const Arg& arg : row.args)
      if (!arg.decode.empty()) names.insert(arg.decode);
  };
  for (const SyscallRow& row : syscall_table()) {
    collect(row);
    for (const CommandRow& command : command_table(row.number)) collect(command.row);
  }
  CHECK(names.size() > 50);
  for (std::string_view name : names) {
    CAPTURE(name);
    CHECK(is_known_decode(name));
  }
}

TEST_CASE("rubbish is told too") {
  std::mt19937_64 random(7);
  constexpr uint64_t kBase = 0x10000;
  std::vector<uint8_t> content(8192);
  size_t characters = 0;
  for (int round = 0; round < 200; ++round) {
    for (uint8_t& byte : content) byte = static_cast<uint8_t>(random() >> (random() % 8 * 7));
    for (size_t at = 0; at + 8 <= content.size(); at += 8 * (1 + random() % 8)) {
      const uint64_t pointer = kBase + random() % content.size();
      memcpy(&content[at], &pointer, sizeof(pointer));
    }
    fakes::RangeMemory memory(kBase, content);
    const auto tell = [&](const SyscallRow& row) {
      std::array<uint64_t, 6> args;
      for (uint64_t& arg : args)
        arg = random() % 3 == 0 ? random() % 64 : kBase + random() % (content.size() + 64);
      if (random() % 8 == 0) args[random() % 6] = random();
      const CallText text(row, args, memory);
      const int64_t result = random() % 4 == 0 ? -static_cast<int64_t>(random() % 600)
                                               : static_cast<int64_t>(random() >> (random() % 64));
      characters +=
          text.begin().size() + text.finish(result, memory).size() + text.arguments(result, memory).size();
    };
    for (const SyscallRow& row : syscall_table()) tell(row);
    for (const CommandRow& command : command_table(static_cast<int>(random() % 460))) tell(command.row);
  }
  CHECK(characters > 100000);
}
