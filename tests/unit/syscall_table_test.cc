// The system-call table as data: complete, found by number and by command, and in agreement with the laws of
// the project (fail closed, say why). What the kernel thinks of directions and sizes is asked in
// syscall_native_test.cc.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/syscalls/table.h"

#include <asm/prctl.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "libmosix/arch/x86_64/syscall_numbers.h"

using namespace mosix;

namespace {

constexpr Where kAllPlaces[] = {Where::kHere, Where::kHome, Where::kSplit, Where::kBringHome, Where::kRefuse};
constexpr const char* kPlaceNames[] = {"here", "home", "split", "bring_home", "refuse"};

constexpr int kMultiplexed[] = {__NR_ioctl,      __NR_fcntl,         __NR_epoll_ctl,    __NR_fsconfig,
                                __NR_getsockopt, __NR_setsockopt,    __NR_prctl,        __NR_arch_prctl,
                                __NR_kcmp,       __NR_get_mempolicy, __NR_shmctl,       __NR_semctl,
                                __NR_msgctl,     __NR_clock_gettime, __NR_timer_create, __NR_clock_nanosleep,
                                __NR_keyctl};

/// Rows of calls and of commands alike.
std::vector<const SyscallRow*> every_row() {
  std::vector<const SyscallRow*> rows;
  for (const SyscallRow& row : syscall_table()) rows.push_back(&row);
  for (int number : kMultiplexed)
    for (const CommandRow& command : command_table(number)) rows.push_back(&command.row);
  return rows;
}

Where place_of(uint64_t number, std::array<uint64_t, 6> args = {}) { return syscall_row(number, args).where; }

bool has(const SyscallRow& row, uint32_t effects) { return (row.effects & effects) == effects; }

bool is_out(const Arg& arg) { return arg.direction == Direction::kOut || arg.direction == Direction::kInOut; }

}  // namespace

TEST_CASE("every number up to the last of Linux 6.18 has its row, in order") {
  const auto table = syscall_table();
  REQUIRE(table.size() == 470);
  std::set<std::string_view> names;
  for (size_t number = 0; number < table.size(); ++number) {
    CHECK(table[number].number == static_cast<int>(number));
    CHECK(names.insert(table[number].name).second);
  }
  CHECK(syscall_row(337).name == "unused_337");
  CHECK(syscall_row(423).name == "unused_423");
  CHECK(syscall_row(424).name == "pidfd_send_signal");
  CHECK(syscall_row(469).name == "file_setattr");
}

TEST_CASE("the kernel's header has no call that the table lacks or numbers otherwise") {
  std::ifstream header("/usr/include/x86_64-linux-gnu/asm/unistd_64.h");
  if (!header) {
    MESSAGE("skipped: no asm/unistd_64.h on this machine");
    return;
  }
  size_t found = 0;
  for (std::string line; std::getline(header, line);) {
    char name[64];
    unsigned number = 0;
    if (sscanf(line.c_str(), "#define __NR_%63s %u", name, &number) != 2 || number > kLastSyscall) continue;
    CHECK_MESSAGE(syscall_row(number).name == name, "number " << number);
    ++found;
  }
  CHECK(found >= 360);
}

TEST_CASE("what has no row comes home, with a reason") {
  const uint64_t kX32Bit = 0x40000000;
  for (uint64_t number :
       {uint64_t{470}, uint64_t{512}, uint64_t{547}, kX32Bit, kX32Bit + 1, ~uint64_t{0}, uint64_t{1} << 32}) {
    const SyscallRow& row = syscall_row(number);
    CHECK(row.name == "unknown");
    CHECK(row.where == Where::kBringHome);
    CHECK_FALSE(row.note.empty());
  }
  for (int number = kFirstUnusedSyscall; number <= kLastUnusedSyscall; ++number)
    CHECK(syscall_row(number).where == Where::kBringHome);
  CHECK(place_of(__NR_ioctl, {0, 0xdeadbeef}) == Where::kBringHome);
  CHECK(place_of(__NR_fcntl, {0, 4711}) == Where::kBringHome);
  CHECK(place_of(__NR_prctl, {4711}) == Where::kBringHome);
  CHECK(place_of(__NR_arch_prctl, {4711}) == Where::kBringHome);
  CHECK(place_of(__NR_semctl, {0, 0, 13}) == Where::kBringHome);  // GETALL
  CHECK(place_of(__NR_setsockopt, {0, 4711, 1}) == Where::kHome);
  for (const SyscallRow* row : every_row()) {
    if (row->where == Where::kBringHome) CHECK_MESSAGE(!row->note.empty(), row->name);
    if (row->where == Where::kRefuse)
      CHECK_MESSAGE((row->refusal == ENOSYS && !row->note.empty()), row->name);
  }
}

TEST_CASE("commands are found by their 32 bits, and by level where there is one") {
  const auto row_name = [](int number, std::array<uint64_t, 6> args) {
    const SyscallRow& row = syscall_row(number, args);
    for (const CommandRow& command : command_table(number))
      if (&command.row == &row) return std::string(command.command_name);
    return std::string("-");
  };
  CHECK(row_name(__NR_ioctl, {1, TCGETS}) == "TCGETS");
  CHECK(row_name(__NR_ioctl, {1, TCGETS | 0xffff'ffff'0000'0000}) == "TCGETS");
  CHECK(row_name(__NR_ioctl, {1, 0x80086601}) == "FS_IOC_GETFLAGS");
  CHECK(row_name(__NR_fcntl, {1, F_OFD_SETLKW}) == "F_OFD_SETLKW");
  CHECK(row_name(__NR_prctl, {PR_SET_NAME}) == "PR_SET_NAME");
  CHECK(row_name(__NR_setsockopt, {1, SOL_SOCKET, SO_LINGER}) == "SO_LINGER");
  CHECK(row_name(__NR_setsockopt, {1, 4711, SO_LINGER}) == "-");
  CHECK(row_name(__NR_getsockopt, {1, IPPROTO_TCP, TCP_NODELAY}) == "TCP_NODELAY");
  CHECK(row_name(__NR_clock_gettime, {CLOCK_TAI}) == "CLOCK_TAI");
  CHECK(row_name(__NR_epoll_ctl, {1, EPOLL_CTL_DEL}) == "EPOLL_CTL_DEL");
  CHECK(row_name(__NR_read, {}) == "-");

  for (int number : kMultiplexed) {
    const auto commands = command_table(number);
    REQUIRE_MESSAGE(!commands.empty(), number);
    REQUIRE(command_argument(number) >= 0);
    for (const CommandRow& command : commands) {
      CHECK(command.row.number == number);
      CHECK(command.row.name == syscall_row(number).name);
      std::array<uint64_t, 6> args{};
      args[command_argument(number)] = command.command;
      if (number == __NR_getsockopt || number == __NR_setsockopt) args[1] = command.level;
      CHECK_MESSAGE(&syscall_row(number, args) == &command.row, command.command_name);
    }
  }
  CHECK(command_table(__NR_read).empty());
  CHECK(command_argument(__NR_read) == -1);
  CHECK(command_argument(__NR_ioctl) == 1);
}

TEST_CASE("nothing runs on the away node but what was decided to") {
  // A change of this list is a change of the sandbox: it is to be made here as well, knowingly.
  const std::set<std::string_view> expected = {"munmap",
                                               "mprotect",
                                               "mremap",
                                               "madvise",
                                               "brk",
                                               "mincore",
                                               "msync",
                                               "futex",
                                               "futex_waitv",
                                               "futex_wait",
                                               "futex_wake",
                                               "futex_requeue",
                                               "sched_yield",
                                               "clock_getres",
                                               "gettimeofday",
                                               "time",
                                               "getcpu",
                                               "gettid",
                                               "getpid",
                                               "set_tid_address",
                                               "set_robust_list",
                                               "get_robust_list",
                                               "rseq",
                                               "sigaltstack",
                                               "membarrier",
                                               "getrandom"};
  std::set<std::string_view> found;
  for (const SyscallRow& row : syscall_table())
    if (row.where == Where::kHere) found.insert(row.name);
  CHECK(found == expected);

  std::set<std::string_view> commands;
  for (int number : kMultiplexed)
    for (const CommandRow& command : command_table(number))
      if (command.row.where == Where::kHere) commands.insert(command.command_name);
  CHECK(commands == std::set<std::string_view>{
                        "ARCH_SET_FS", "ARCH_SET_GS", "ARCH_GET_FS", "ARCH_GET_GS", "PR_SET_VMA",
                        "PR_GET_TID_ADDRESS", "PR_FUTEX_HASH", "CLOCK_REALTIME", "CLOCK_MONOTONIC",
                        "CLOCK_MONOTONIC_RAW", "CLOCK_REALTIME_COARSE", "CLOCK_MONOTONIC_COARSE",
                        "CLOCK_BOOTTIME", "CLOCK_REALTIME_ALARM", "CLOCK_BOOTTIME_ALARM", "CLOCK_TAI"});
}

TEST_CASE("what changes identity, sandbox or shares memory comes home") {
  for (int number : {__NR_setuid,
                     __NR_setgid,
                     __NR_setreuid,
                     __NR_setregid,
                     __NR_setresuid,
                     __NR_setresgid,
                     __NR_setfsuid,
                     __NR_setfsgid,
                     __NR_seccomp,
                     __NR_landlock_restrict_self,
                     __NR_unshare,
                     __NR_setns,
                     __NR_chroot,
                     __NR_pivot_root,
                     __NR_ptrace,
                     __NR_perf_event_open,
                     __NR_bpf,
                     __NR_userfaultfd,
                     __NR_shmat,
                     __NR_io_setup,
                     __NR_io_submit,
                     __NR_io_getevents,
                     __NR_io_pgetevents,
                     __NR_io_uring_setup,
                     __NR_io_uring_enter,
                     __NR_io_uring_register,
                     __NR_process_vm_readv,
                     __NR_process_vm_writev,
                     __NR_process_madvise,
                     __NR_modify_ldt,
                     __NR_iopl,
                     __NR_ioperm,
                     __NR_kexec_load,
                     __NR_init_module,
                     __NR_finit_module,
                     __NR_memfd_secret,
                     __NR_map_shadow_stack,
                     __NR_move_pages,
                     __NR_migrate_pages,
                     __NR_mbind,
                     __NR_uselib,
                     __NR_vmsplice})
    CHECK_MESSAGE(place_of(number) == Where::kBringHome, syscall_row(number).name);
  for (uint64_t option : {PR_SET_SECCOMP, PR_SET_DUMPABLE, PR_SET_MM})
    CHECK_MESSAGE(place_of(__NR_prctl, {option}) == Where::kBringHome, option);
  CHECK(place_of(__NR_setsockopt, {0, SOL_SOCKET, SO_ZEROCOPY}) == Where::kBringHome);
  CHECK(place_of(__NR_timer_create, {CLOCK_PROCESS_CPUTIME_ID}) == Where::kBringHome);
  CHECK(place_of(__NR_clock_nanosleep, {CLOCK_PROCESS_CPUTIME_ID}) == Where::kBringHome);
}

TEST_CASE("split calls name the handler that is meant") {
  const std::map<int, Split> handlers = {
      {__NR_mmap, Split::kMmap},
      {__NR_remap_file_pages, Split::kMemory},
      {__NR_mlock, Split::kLock},
      {__NR_mlock2, Split::kLock},
      {__NR_munlock, Split::kLock},
      {__NR_munlockall, Split::kLock},
      {__NR_pkey_alloc, Split::kProtectionKey},
      {__NR_pkey_mprotect, Split::kProtectionKey},
      {__NR_clone, Split::kClone},
      {__NR_clone3, Split::kClone3},
      {__NR_fork, Split::kFork},
      {__NR_vfork, Split::kVfork},
      {__NR_execve, Split::kExecve},
      {__NR_execveat, Split::kExecveat},
      {__NR_exit, Split::kExit},
      {__NR_exit_group, Split::kExitGroup},
      {__NR_rt_sigaction, Split::kSigaction},
      {__NR_rt_sigprocmask, Split::kSigprocmask},
      {__NR_rt_sigreturn, Split::kSigreturn},
      {__NR_rt_sigsuspend, Split::kSigsuspend},
      {__NR_ppoll, Split::kTimedMask},
      {__NR_pselect6, Split::kTimedMask},
      {__NR_epoll_pwait, Split::kTimedMask},
      {__NR_epoll_pwait2, Split::kTimedMask},
      {__NR_setitimer, Split::kItimer},
      {__NR_getitimer, Split::kItimer},
      {__NR_times, Split::kTimes},
      {__NR_wait4, Split::kWait},
      {__NR_waitid, Split::kWait},
      {__NR_getrusage, Split::kTimes},
      {__NR_clock_gettime, Split::kTimes},
      {__NR_restart_syscall, Split::kRestart},
      {__NR_prlimit64, Split::kRlimit},
      {__NR_getrlimit, Split::kRlimit},
      {__NR_setrlimit, Split::kRlimit},
  };
  for (const SyscallRow& row : syscall_table()) {
    const auto expected = handlers.find(row.number);
    CHECK_MESSAGE(row.split == (expected == handlers.end() ? Split::kNone : expected->second), row.name);
  }
  CHECK(syscall_row(__NR_prctl, {PR_SET_NAME}).split == Split::kPrctl);
  for (int number : {__NR_ppoll, __NR_pselect6, __NR_epoll_pwait, __NR_epoll_pwait2, __NR_rt_sigsuspend})
    CHECK(has(syscall_row(number), kMayBlock | kChangesMask));
}

TEST_CASE("effects agree with one another") {
  for (const SyscallRow* row : every_row()) {
    INFO(row->name);
    if (row->where == Where::kHome && row->returns == "new fd") CHECK(has(*row, kAddsFd));
    if (has(*row, kPure)) CHECK_FALSE((row->effects & ~kPure));
    if (has(*row, kMayBePartial)) CHECK(row->returns != "0");
    bool fills_by_result = false;
    bool takes_mask = false;
    for (const Arg& arg : row->args) {
      fills_by_result |= arg.size.kind == SizeKind::kArgResult;
      takes_mask |= arg.name == "sigmask";
      if (arg.out_on_error) CHECK(arg.direction == Direction::kInOut);
    }
    if (fills_by_result) CHECK(row->returns != "0");
    CHECK(takes_mask == (has(*row, kChangesMask) && row->number != __NR_rt_sigsuspend));
  }
  // Whatever can sleep until somebody else does something must be known to: its deputy is interrupted.
  for (int number : {__NR_read,
                     __NR_write,
                     __NR_readv,
                     __NR_writev,
                     __NR_pread64,
                     __NR_open,
                     __NR_openat,
                     __NR_poll,
                     __NR_select,
                     __NR_connect,
                     __NR_accept,
                     __NR_accept4,
                     __NR_sendto,
                     __NR_recvfrom,
                     __NR_sendmsg,
                     __NR_recvmsg,
                     __NR_sendmmsg,
                     __NR_recvmmsg,
                     __NR_wait4,
                     __NR_waitid,
                     __NR_flock,
                     __NR_msgsnd,
                     __NR_msgrcv,
                     __NR_semop,
                     __NR_pause,
                     __NR_nanosleep,
                     __NR_fsync,
                     __NR_epoll_wait,
                     __NR_rt_sigtimedwait,
                     __NR_mq_timedsend,
                     __NR_splice,
                     __NR_tee,
                     __NR_sendfile,
                     __NR_semtimedop,
                     __NR_mq_timedreceive,
                     __NR_sync,
                     __NR_ppoll,
                     __NR_pselect6,
                     __NR_epoll_pwait,
                     __NR_vfork,
                     __NR_restart_syscall,
                     __NR_rt_sigsuspend})
    CHECK_MESSAGE(has(syscall_row(number), kMayBlock), syscall_row(number).name);
  CHECK(has(syscall_row(__NR_fcntl, {0, F_SETLKW}), kMayBlock));
  CHECK_FALSE(has(syscall_row(__NR_fcntl, {0, F_SETLK}), kMayBlock));
  for (int number : {__NR_poll, __NR_ppoll, __NR_select, __NR_pselect6, __NR_epoll_wait, __NR_epoll_pwait,
                     __NR_nanosleep, __NR_rt_sigtimedwait, __NR_semtimedop})
    CHECK_MESSAGE(has(syscall_row(number), kTimed), syscall_row(number).name);
}

TEST_CASE("a decoded structure has one size wherever it stands") {
  std::map<std::string_view, std::set<uint32_t>> sizes = {
      {"stat", {sizeof(struct stat)}},
      {"statx", {sizeof(struct statx)}},
      {"statfs", {sizeof(struct statfs)}},
      {"timespec", {sizeof(timespec)}},
      {"timeval", {sizeof(timeval)}},
      {"itimerspec", {sizeof(itimerspec)}},
      {"itimerval", {sizeof(itimerval)}},
      {"rlimit", {sizeof(rlimit)}},
      {"rusage", {sizeof(rusage)}},
      {"utsname", {sizeof(utsname)}},
      {"sysinfo", {sizeof(struct sysinfo)}},
      {"siginfo", {sizeof(siginfo_t)}},
      {"winsize", {sizeof(winsize)}},
      {"flock", {sizeof(struct flock)}},
      {"tms", {sizeof(tms)}},
      {"fd_pair", {sizeof(int[2])}},
      {"int", {sizeof(int)}},
      {"offset", {sizeof(off_t)}},
      {"wait_status", {sizeof(int)}},
      {"termios", {36, 44}},
  };
  std::set<std::string_view> seen;
  for (const SyscallRow* row : every_row()) {
    for (const Arg& arg : row->args) {
      const auto expected = sizes.find(arg.decode);
      if (arg.kind != ArgKind::kBuffer || expected == sizes.end() || arg.size.kind != SizeKind::kConst)
        continue;
      CHECK_MESSAGE(expected->second.count(arg.size.bytes) == 1, row->name << " " << arg.name);
      seen.insert(arg.decode);
    }
  }
  for (const auto& entry : sizes) CHECK_MESSAGE(seen.count(entry.first) == 1, entry.first);
  CHECK(syscall_row(__NR_poll).args[0].size.bytes == sizeof(pollfd));
  CHECK(syscall_row(__NR_epoll_wait).args[1].size.bytes == sizeof(epoll_event));
}

namespace {

struct KernelArgument {
  std::string name;
  bool is_pointer = false;
  bool is_const = false;
};

/// The arguments of a call as the running kernel declares them: a format file of tracefs, whose first field
/// that matters follows __syscall_nr.
std::vector<KernelArgument> arguments_of(const std::filesystem::path& format) {
  std::ifstream file(format);
  std::vector<KernelArgument> arguments;
  bool past_number = false;
  for (std::string line; std::getline(file, line);) {
    const size_t start = line.find("field:");
    if (start == std::string::npos) continue;
    const std::string declaration = line.substr(start + 6, line.find(';') - start - 6);
    // A kernel of our days notes the contents of strings as well ("__pathname_val"): no arguments.
    if (past_number && declaration.find("__data_loc") == std::string::npos) {
      const bool is_typedef_of_pointer = declaration.find("cap_user_") != std::string::npos;
      arguments.push_back({declaration.substr(declaration.rfind(' ') + 1),
                           declaration.find('*') != std::string::npos || is_typedef_of_pointer,
                           declaration.find("const ") == 0});
    }
    past_number |= declaration.find("__syscall_nr") != std::string::npos;
  }
  return arguments;
}

bool follows_pointer(const Arg& arg) {
  return arg.kind == ArgKind::kString || arg.kind == ArgKind::kBuffer || arg.kind == ArgKind::kStringArray ||
         arg.kind == ArgKind::kIovec || arg.kind == ArgKind::kMsghdr || arg.kind == ArgKind::kMmsghdr ||
         arg.kind == ArgKind::kLocalPointer;
}

/// Whether the table and the kernel mean the same by an argument. What a command decides (ioctl and the like)
/// and what only comes home may be a number in the table though it is a pointer in the kernel.
void compare(const SyscallRow& row, const Arg& arg, const KernelArgument& kernel) {
  INFO(row.name << ": " << arg.name << ", in the kernel " << kernel.name);
  const bool is_forwarded = row.where == Where::kHome || row.where == Where::kSplit;
  const bool is_event = row.number == __NR_epoll_ctl && arg.name == "event";
  if (!kernel.is_pointer) CHECK_FALSE(follows_pointer(arg));
  if (kernel.is_pointer && is_forwarded && !is_event) CHECK(follows_pointer(arg));
  if (kernel.is_const && is_forwarded && arg.kind != ArgKind::kIovec) CHECK_FALSE(is_out(arg));
}

}  // namespace

TEST_CASE("the running kernel declares the same arguments") {
  char directory[] = "/tmp/mosix-tracefs-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const bool is_mounted = unshare(CLONE_NEWNS) == 0 &&
                          mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                          mount("tracefs", directory, "tracefs", 0, nullptr) == 0;
  const std::filesystem::path events = std::filesystem::path(directory) / "events/syscalls";
  size_t compared = 0;
  if (is_mounted && std::filesystem::exists(events)) {
    const std::map<std::string_view, std::string> other_names = {
        {"stat", "newstat"},   {"fstat", "newfstat"},      {"lstat", "newlstat"},
        {"uname", "newuname"}, {"sendfile", "sendfile64"}, {"umount2", "umount"}};
    for (const SyscallRow& row : syscall_table()) {
      const auto other = other_names.find(row.name);
      const std::string name = other == other_names.end() ? std::string(row.name) : other->second;
      const auto format = events / ("sys_enter_" + name) / "format";
      if (row.where == Where::kRefuse || !std::filesystem::exists(format)) continue;
      const auto kernel = arguments_of(format);
      size_t count = 0;
      while (count < row.args.size() && row.args[count].kind != ArgKind::kNone) ++count;
      CHECK_MESSAGE(count == kernel.size(), row.name);
      for (size_t i = 0; i < std::min(count, kernel.size()); ++i) compare(row, row.args[i], kernel[i]);
      ++compared;
    }
    CHECK(compared > 300);
  }
  if (is_mounted) umount2(directory, MNT_DETACH);
  rmdir(directory);
  if (compared == 0)
    MESSAGE("skipped: tracefs with system-call events needs root and CONFIG_FTRACE_SYSCALLS");
}

TEST_CASE("how many rows there are of each disposition") {
  std::ostringstream text;
  const auto count = [&](const char* what, const auto& rows, const auto& where) {
    size_t total = 0;
    text << what << ":";
    for (size_t i = 0; i < std::size(kAllPlaces); ++i) {
      size_t rows_there = 0;
      for (const auto& row : rows) rows_there += where(row) == kAllPlaces[i];
      text << " " << kPlaceNames[i] << " " << rows_there;
      total += rows_there;
    }
    text << ", together " << total << "\n";
    CHECK(total == rows.size());
    CHECK(total > 0);
  };
  count("calls", syscall_table(), [](const SyscallRow& row) { return row.where; });
  for (int number : kMultiplexed)
    count(std::string(syscall_row(number).name).c_str(), command_table(number),
          [](const CommandRow& command) { return command.row.where; });
  MESSAGE(text.str());

  size_t forwarded = 0;
  for (const SyscallRow& row : syscall_table())
    forwarded += row.where == Where::kHome || row.where == Where::kSplit || command_argument(row.number) >= 0;
  CHECK(forwarded >= 250);  // a table that brings everything home would be exact as well, and of no use
}
