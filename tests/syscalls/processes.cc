// Processes: fork, vfork, posix_spawn, exec and its failures, wait in all its forms, groups, sessions,
// orphans, and what a child inherits. The program executes itself as `--child WHAT ...` where it needs a new
// image.
#include <dirent.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <fstream>
#include <thread>
#include <vector>

#include "check.h"

using check::Scratch;

extern char** environ;

namespace {

std::string own_path;

int wait_for(pid_t pid) {
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

pid_t forked() {
  fflush(stdout);
  const pid_t pid = fork();
  CHECK(pid >= 0);
  return pid;
}

/// Forks and executes this program as a child of the given kind; returns its wait status.
int run_child(std::vector<const char*> words) {
  const pid_t pid = forked();
  if (pid == 0) {
    words.insert(words.begin(), {own_path.c_str(), "--child"});
    words.push_back(nullptr);
    execv(own_path.c_str(), const_cast<char**>(words.data()));
    _exit(126);
  }
  return wait_for(pid);
}

// ---- what the program is when it has been executed by a check

int child_main(int argc, char** argv) {
  const std::string what = argc > 2 ? argv[2] : "";
  if (what == "exit") return atoi(argv[3]);
  if (what == "closed") return fcntl(atoi(argv[3]), F_GETFD) < 0 && errno == EBADF ? 0 : 1;
  if (what == "open") return fcntl(atoi(argv[3]), F_GETFD) == 0 ? 0 : 1;
  if (what == "environment") return getenv("COLOUR") && strcmp(getenv("COLOUR"), argv[3]) == 0 ? 0 : 1;
  if (what == "words") {
    for (int i = 3; i < argc; ++i)
      if (strlen(argv[i]) != static_cast<size_t>(i)) return 1;
    return argc;
  }
  if (what == "signals") {
    // Ignored stays ignored over exec, handled becomes default, blocked stays blocked.
    struct sigaction ignored {
    }, handled{};
    sigaction(SIGUSR1, nullptr, &ignored);
    sigaction(SIGUSR2, nullptr, &handled);
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, nullptr, &blocked);
    sigset_t waiting;
    sigpending(&waiting);
    if (ignored.sa_handler != SIG_IGN) return 1;
    if (handled.sa_handler != SIG_DFL) return 2;
    if (!sigismember(&blocked, SIGTERM)) return 3;
    return sigismember(&waiting, SIGTERM) ? 0 : 4;
  }
  if (what == "pid") return getpid() == atoi(argv[3]) && getppid() == atoi(argv[4]) ? 0 : 1;
  if (what == "offset") return lseek(atoi(argv[3]), 0, SEEK_CUR) == atoi(argv[4]) ? 0 : 1;
  return 125;
}

// ---- the checks

void exit_codes() {
  for (int code : {0, 1, 42, 127, 255}) CHECK_EQ(WEXITSTATUS(check::in_child([&] { return code; })), code);
  CHECK_EQ(WEXITSTATUS(check::in_child([] { return 256 + 7; })), 7);
  const int status = check::in_child([] {
    kill(getpid(), SIGKILL);
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGKILL);
}

void child_is_a_copy() {
  static int value;
  value = 1;
  std::vector<int> heap(100000, 7);
  int local = 3;
  const pid_t parent = getpid();
  CHECK_EQ(check::in_child([&] {
             if (getppid() != parent || getpid() == parent) return 1;
             if (value != 1 || heap[99999] != 7 || local != 3) return 2;
             value = 2;
             heap.assign(heap.size(), 9);
             local = 4;
             move_point();
             return heap[50000] == 9 && value == 2 ? 0 : 3;
           }),
           0);
  CHECK_EQ(value, 1);
  CHECK_EQ(heap[50000], 7);
  CHECK_EQ(local, 3);
}

void generations() {
  // Each child makes the next; the last one's code comes up through all of them.
  auto descend = [](auto& self, int depth) -> int {
    if (depth == 0) return 10;
    const int status = check::in_child([&] { return self(self, depth - 1); });
    return WIFEXITED(status) ? WEXITSTATUS(status) + 1 : 99;
  };
  CHECK_EQ(descend(descend, 8), 18);
}

void many_children_at_once() {
  std::vector<pid_t> children;
  for (int i = 0; i < 40; ++i) {
    const pid_t pid = forked();
    if (pid == 0) _exit(i);
    children.push_back(pid);
  }
  move_point();
  for (int i = 39; i >= 0; --i) CHECK_EQ(WEXITSTATUS(wait_for(children[static_cast<size_t>(i)])), i);
}

void waiting_in_all_forms() {
  int gate[2];
  CHECK_EQ(pipe(gate), 0);
  const pid_t pid = forked();
  if (pid == 0) {
    close(gate[1]);
    char byte;
    _exit(read(gate[0], &byte, 1) == 0 ? 21 : 1);
  }
  close(gate[0]);
  int status = -1;
  CHECK_EQ(waitpid(pid, &status, WNOHANG), 0);
  CHECK_EQ(waitpid(-1, &status, WNOHANG), 0);
  siginfo_t info{};
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG), 0);
  CHECK_EQ(info.si_pid, 0);
  close(gate[1]);
  CHECK_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  CHECK_EQ(info.si_pid, pid);
  CHECK_EQ(info.si_status, 21);
  CHECK_EQ(info.si_code, CLD_EXITED);
  rusage usage{};
  CHECK_EQ(wait4(pid, &status, 0, &usage), pid);
  CHECK_EQ(WEXITSTATUS(status), 21);
  CHECK(usage.ru_maxrss > 0);
  CHECK_FAILS(waitpid(pid, &status, 0), ECHILD);
  CHECK_FAILS(waitpid(-1, &status, 0), ECHILD);
  CHECK_FAILS(waitpid(pid, &status, 0x100), EINVAL);
  // A process descriptor becomes readable when its process ends.
  const pid_t second = forked();
  if (second == 0) _exit(3);
  const int descriptor = static_cast<int>(syscall(SYS_pidfd_open, second, 0));
  CHECK(descriptor >= 0);
  pollfd watch{descriptor, POLLIN, 0};
  CHECK_EQ(poll(&watch, 1, -1), 1);
  CHECK_EQ(waitid(static_cast<idtype_t>(3), static_cast<id_t>(descriptor), &info, WEXITED), 0);
  CHECK_EQ(info.si_pid, second);
  close(descriptor);
  // A parent that ignores SIGCHLD has no zombies.
  signal(SIGCHLD, SIG_IGN);
  const pid_t third = forked();
  if (third == 0) _exit(0);
  CHECK_FAILS(waitpid(third, &status, 0), ECHILD);
  signal(SIGCHLD, SIG_DFL);
}

void vfork_shares_and_waits() {
  static volatile int written;
  written = 0;
  fflush(stdout);
  pid_t pid = vfork();
  if (pid == 0) {
    written = 77;  // in the parent's memory
    _exit(6);
  }
  CHECK(pid > 0);
  CHECK_EQ(static_cast<int>(written), 77);
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 6);
  pid = vfork();
  if (pid == 0) {
    execl(own_path.c_str(), own_path.c_str(), "--child", "exit", "8", static_cast<char*>(nullptr));
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 8);
  pid = vfork();
  if (pid == 0) {
    execl("/no/such/program", "x", static_cast<char*>(nullptr));
    _exit(errno == ENOENT ? 4 : 5);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 4);
}

void spawn_with_actions() {
  Scratch scratch;
  posix_spawn_file_actions_t actions;
  CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
  CHECK_EQ(posix_spawn_file_actions_addopen(&actions, 1, "out", O_WRONLY | O_CREAT, 0600), 0);
  CHECK_EQ(posix_spawn_file_actions_addclose(&actions, 0), 0);
  posix_spawnattr_t attributes;
  CHECK_EQ(posix_spawnattr_init(&attributes), 0);
  CHECK_EQ(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK), 0);
  char name[] = "sh", option[] = "-c", script[] = "echo spawned; exit 3";
  char* words[] = {name, option, script, nullptr};
  pid_t pid = 0;
  fflush(stdout);
  CHECK_EQ(posix_spawn(&pid, "/bin/sh", &actions, &attributes, words, environ), 0);
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 3);
  CHECK_EQ(posix_spawn(&pid, "/no/such/program", nullptr, nullptr, words, environ), ENOENT);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  std::ifstream out("out");
  std::string line;
  std::getline(out, line);
  CHECK_EQ(line, "spawned");
}

void exec_gives_a_new_program() {
  CHECK_EQ(WEXITSTATUS(run_child({"exit", "9"})), 9);
  CHECK_EQ(WEXITSTATUS(run_child({"words", "333", "4444", "55555"})), 6);
  const std::string pid_text = std::to_string(getpid());
  const pid_t pid = forked();
  if (pid == 0) {
    const std::string own = std::to_string(getpid());
    execl(own_path.c_str(), "renamed", "--child", "pid", own.c_str(), pid_text.c_str(),
          static_cast<char*>(nullptr));
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 0);
  const pid_t other = forked();
  if (other == 0) {
    char name[] = "x", child[] = "--child", what[] = "environment", colour[] = "blue",
         setting[] = "COLOUR=blue";
    char* words[] = {name, child, what, colour, nullptr};
    char* settings[] = {setting, nullptr};
    execve(own_path.c_str(), words, settings);
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(other)), 0);
  const pid_t by_fd = forked();
  if (by_fd == 0) {
    char name[] = "x", child[] = "--child", what[] = "exit", code[] = "11";
    char* words[] = {name, child, what, code, nullptr};
    fexecve(open(own_path.c_str(), O_RDONLY | O_CLOEXEC), words, environ);
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(by_fd)), 11);
}

void exec_that_fails_changes_nothing() {
  Scratch scratch;
  char word[] = "x";
  char* words[] = {word, nullptr};
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK_FAILS(execve("absent", words, environ), ENOENT);
  close(open("plain", O_WRONLY | O_CREAT, 0644));
  CHECK_FAILS(execve("plain", words, environ), EACCES);
  CHECK_FAILS(execve(".", words, environ), EACCES);
  const int garbage = open("garbage", O_WRONLY | O_CREAT, 0755);
  CHECK_EQ(write(garbage, "\x01\x02\x03\x04", 4), 4);
  close(garbage);
  CHECK_FAILS(execve("garbage", words, environ), ENOEXEC);
  CHECK_FAILS(syscall(SYS_execve, 8L, words, environ), EFAULT);
  const int script = open("script", O_WRONLY | O_CREAT, 0755);
  CHECK_EQ(write(script, "#!/no/such/interpreter\n", 23), 23);
  close(script);
  CHECK_FAILS(execve("script", words, environ), ENOENT);
  CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  close(fd);
  move_point();
  CHECK_FAILS(execve("absent", words, environ), ENOENT);
}

void scripts_are_programs() {
  Scratch scratch;
  const int fd = open("script", O_WRONLY | O_CREAT, 0755);
  const char text[] = "#!/bin/sh -u\nexit $(($1 + $#))\n";
  CHECK_EQ(write(fd, text, sizeof text - 1), static_cast<ssize_t>(sizeof text - 1));
  close(fd);
  const pid_t pid = forked();
  if (pid == 0) {
    execl("./script", "./script", "40", "x", static_cast<char*>(nullptr));
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 42);
  CHECK_EQ(WEXITSTATUS(system("exit 12")), 12);
  FILE* pipe = popen("echo through a pipe", "r");
  char line[64] = {};
  CHECK(fgets(line, sizeof line, pipe) != nullptr);
  CHECK_EQ(std::string(line), "through a pipe\n");
  CHECK_EQ(pclose(pipe), 0);
}

void descriptors_over_exec() {
  const int kept = open("/dev/zero", O_RDONLY), closed = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  CHECK_EQ(WEXITSTATUS(run_child({"open", std::to_string(kept).c_str()})), 0);
  CHECK_EQ(WEXITSTATUS(run_child({"closed", std::to_string(closed).c_str()})), 0);
  CHECK_EQ(fcntl(kept, F_SETFD, FD_CLOEXEC), 0);
  CHECK_EQ(WEXITSTATUS(run_child({"closed", std::to_string(kept).c_str()})), 0);
  close(kept);
  close(closed);
  Scratch scratch;
  const int file = open("file", O_RDWR | O_CREAT, 0600);
  CHECK_EQ(write(file, "123456", 6), 6);
  CHECK_EQ(WEXITSTATUS(run_child({"offset", std::to_string(file).c_str(), "6"})), 0);
  close(file);
}

void signals_over_exec() {
  const pid_t pid = forked();
  if (pid == 0) {
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, [](int) {});
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, nullptr);
    raise(SIGTERM);
    execl(own_path.c_str(), "x", "--child", "signals", static_cast<char*>(nullptr));
    _exit(126);
  }
  CHECK_EQ(WEXITSTATUS(wait_for(pid)), 0);
}

void groups_and_sessions() {
  CHECK_EQ(getpgid(0), getpgrp());
  CHECK_EQ(check::in_child([] {
             if (setpgid(0, 0) != 0 || getpgrp() != getpid()) return 1;
             if (setsid() != -1 || errno != EPERM) return 2;
             return 0;
           }),
           0);
  CHECK_EQ(check::in_child([] {
             if (setsid() != getpid()) return 1;
             if (getsid(0) != getpid() || getpgrp() != getpid()) return 2;
             if (open("/dev/tty", O_RDWR) >= 0 || errno != ENXIO) return 3;
             return 0;
           }),
           0);
  // A signal to a group reaches each of its members.
  int ready[2];
  CHECK_EQ(pipe(ready), 0);
  const pid_t leader = forked();
  if (leader == 0) {
    setpgid(0, 0);
    for (int i = 0; i < 3; ++i) {
      if (fork() == 0) {
        if (write(ready[1], "r", 1) != 1) _exit(1);
        for (;;) pause();
      }
    }
    int status = 0, killed = 0;
    signal(SIGTERM, SIG_IGN);
    if (write(ready[1], "l", 1) != 1) _exit(1);
    while (wait(&status) > 0) killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
    _exit(killed);
  }
  char byte;
  for (int i = 0; i < 4; ++i) CHECK_EQ(read(ready[0], &byte, 1), 1);
  CHECK_EQ(getpgid(leader), leader);
  CHECK_EQ(kill(-leader, SIGTERM), 0);
  CHECK_EQ(WEXITSTATUS(wait_for(leader)), 3);
  CHECK_FAILS(kill(-leader, SIGTERM), ESRCH);
  close(ready[0]);
  close(ready[1]);
}

void orphans_get_a_new_parent() {
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  int told[2], gate[2];
  CHECK_EQ(pipe(told), 0);
  CHECK_EQ(pipe(gate), 0);
  const pid_t self = getpid();
  const pid_t middle = forked();
  if (middle == 0) {
    const pid_t orphan = fork();
    if (orphan == 0) {
      close(gate[1]);
      char byte;
      if (read(gate[0], &byte, 1) != 0) _exit(1);
      _exit(getppid() == self ? 30 : 2);
    }
    _exit(write(told[1], &orphan, sizeof orphan) == sizeof orphan ? 0 : 1);
  }
  pid_t orphan = 0;
  CHECK_EQ(read(told[0], &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  CHECK_EQ(wait_for(middle), 0);
  close(gate[1]);
  CHECK_EQ(WEXITSTATUS(wait_for(orphan)), 30);
  close(gate[0]);
  close(told[0]);
  close(told[1]);
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

void parent_death_is_told() {
  int line[2];
  CHECK_EQ(pipe(line), 0);
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const pid_t middle = forked();
  if (middle == 0) {
    int set[2];
    if (pipe(set) != 0) _exit(1);
    if (fork() == 0) {
      close(line[0]);
      if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) _exit(1);
      if (write(set[1], "s", 1) != 1) _exit(2);
      for (;;) pause();
    }
    char byte;
    _exit(read(set[0], &byte, 1) == 1 ? 0 : 1);
  }
  close(line[1]);
  CHECK_EQ(wait_for(middle), 0);
  char byte;
  CHECK_EQ(read(line[0], &byte, 1), 0);
  int status = 0;
  CHECK(wait(&status) > 0);
  CHECK_EQ(WTERMSIG(status), SIGKILL);
  close(line[0]);
  CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

void what_a_child_inherits() {
  Scratch scratch;
  CHECK_EQ(mkdir("below", 0755), 0);
  const mode_t mask = umask(013);
  rlimit files{};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  CHECK_EQ(check::in_child([&] {
             if (umask(0) != 013) return 1;
             char here[4096];
             if (!getcwd(here, sizeof here) || here != scratch.path()) return 2;
             if (chdir("below") != 0) return 3;
             rlimit lower = files;
             lower.rlim_cur = 64;
             if (setrlimit(RLIMIT_NOFILE, &lower) != 0) return 4;
             int last = -1;
             for (int fd; (fd = open("/dev/null", O_RDONLY)) >= 0;) last = fd;
             return last == 63 && errno == EMFILE ? 0 : 5;
           }),
           0);
  rlimit after{};
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
  CHECK_EQ(after.rlim_cur, files.rlim_cur);
  CHECK_EQ(umask(mask), 013u);
  errno = 0;
  const int nice_before = getpriority(PRIO_PROCESS, 0);
  CHECK_EQ(check::in_child([&] { return nice(3) == nice_before + 3 ? 0 : 1; }), 0);
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), nice_before);
}

void limits() {
  rlimit core{};
  CHECK_EQ(getrlimit(RLIMIT_CORE, &core), 0);
  CHECK_EQ(check::in_child([] {
             const rlimit none{0, 0};
             if (setrlimit(RLIMIT_CORE, &none) != 0) return 1;
             rlimit back{1, 1};
             if (prlimit(0, RLIMIT_CORE, nullptr, &back) != 0 || back.rlim_max != 0) return 2;
             return 0;
           }),
           0);
  const int status = check::in_child([] {
    signal(SIGXFSZ, SIG_DFL);
    const rlimit small{100, 100};
    if (setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
    const int fd = open(".", O_TMPFILE | O_RDWR, 0600);
    if (fd < 0) kill(getpid(), SIGXFSZ);
    char data[200] = {};
    if (write(fd, data, 200) != 100) return 2;
    (void)!write(fd, data, 1);
    return 3;
  });
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGXFSZ);
  // CPU time counts where the program computes.
  const int cpu = check::in_child([]() -> int {
    signal(SIGXCPU, SIG_DFL);
    const rlimit one{1, 2};
    if (setrlimit(RLIMIT_CPU, &one) != 0) return 1;
    for (;;) asm volatile("");
  });
  CHECK(WIFSIGNALED(cpu));
  CHECK_EQ(WTERMSIG(cpu), SIGXCPU);
}

uint64_t capability_sets[3];

/// Of the calling thread: what it may use, may take, and hands on.
bool read_capabilities() {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct halves[2]{};
  if (syscall(SYS_capget, &head, halves) != 0) return false;
  auto whole = [](uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; };
  capability_sets[0] = whole(halves[0].effective, halves[1].effective);
  capability_sets[1] = whole(halves[0].permitted, halves[1].permitted);
  capability_sets[2] = whole(halves[0].inheritable, halves[1].inheritable);
  return true;
}

long change_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct halves[2]{};
  for (int i = 0; i < 2; ++i) {
    halves[i].effective = static_cast<uint32_t>(effective >> 32 * i);
    halves[i].permitted = static_cast<uint32_t>(permitted >> 32 * i);
    halves[i].inheritable = static_cast<uint32_t>(inheritable >> 32 * i);
  }
  return syscall(SYS_capset, &head, halves);
}

/// What is given up stays given up, by this thread alone.
void capabilities_given_up() {
  const int status = check::in_child([]() -> int {
    if (!read_capabilities()) return 1;
    const uint64_t had = capability_sets[1], last = had & ~(had - 1), rest = had & ~last;
    if (change_capabilities(0, rest, 0) != 0) return 2;
    move_point();
    if (!read_capabilities() || capability_sets[0] != 0 || capability_sets[1] != rest) return 3;
    if (last != 0 && (change_capabilities(last, had, 0) == 0 || errno != EPERM)) return 4;
    // What it may still take, it takes.
    if (change_capabilities(rest, rest, 0) != 0) return 5;
    move_point();
    if (!read_capabilities() || capability_sets[0] != rest || capability_sets[1] != rest) return 6;
    // Its children have no more than it has.
    const int child = check::in_child([rest]() -> int {
      move_point();
      return read_capabilities() && capability_sets[1] == rest ? 0 : 1;
    });
    if (child != 0) return 7;
    __user_cap_header_struct strange{.version = 17, .pid = 0};
    __user_cap_data_struct halves[2]{};
    if (syscall(SYS_capset, &strange, halves) == 0 || errno != EINVAL) return 8;
    if (strange.version != _LINUX_CAPABILITY_VERSION_3) return 9;  // told
    return change_capabilities(0, 0, 0) == 0 && read_capabilities() && capability_sets[1] == 0 ? 0 : 10;
  });
  CHECK_EQ(status, 0);
  CHECK(read_capabilities());
  const uint64_t effective = capability_sets[0];
  int in_thread = -1;
  std::thread([&] {
    in_thread = read_capabilities() && change_capabilities(0, capability_sets[1], capability_sets[2]) == 0 &&
                        read_capabilities() && capability_sets[0] == 0
                    ? 0
                    : 1;
    move_point();
    if (!read_capabilities() || capability_sets[0] != 0) in_thread = 2;
  }).join();
  CHECK_EQ(in_thread, 0);
  CHECK(read_capabilities());
  CHECK_EQ(capability_sets[0], effective);
}

/// As programs do that run others with fewer rights.
void rights_of_what_it_will_execute() {
  const int status = check::in_child([]() -> int {
    const bool may = prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT) == 0;
    if (!may && errno != EPERM) return 1;
    if (may && prctl(PR_CAPBSET_READ, CAP_SYS_BOOT) != 0) return 2;
    if (prctl(PR_CAPBSET_DROP, 1000) == 0) return 3;
    move_point();
    if (may && prctl(PR_CAPBSET_READ, CAP_SYS_BOOT) != 0) return 4;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return 5;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0) != 0) return 6;
    const int bits = prctl(PR_GET_SECUREBITS);
    if ((prctl(PR_SET_SECUREBITS, bits | SECBIT_NOROOT) == 0) != may) return 7;
    move_point();
    if (prctl(PR_GET_SECUREBITS) != (may ? bits | SECBIT_NOROOT : bits)) return 8;
    const int child =
        check::in_child([may]() -> int { return !may || prctl(PR_CAPBSET_READ, CAP_SYS_BOOT) == 0 ? 0 : 1; });
    return child == 0 ? 0 : 9;
  });
  CHECK_EQ(status, 0);
}

void identity() {
  CHECK_EQ(syscall(SYS_getpid), getpid());
  CHECK_EQ(syscall(SYS_gettid), getpid());
  uid_t real, effective, saved;
  CHECK_EQ(getresuid(&real, &effective, &saved), 0);
  CHECK_EQ(real, getuid());
  CHECK_EQ(effective, geteuid());
  gid_t groups[256];
  const int count = getgroups(256, groups);
  CHECK(count >= 0);
  CHECK_EQ(getgroups(0, nullptr), count);
  char text[64] = {};
  CHECK(readlink("/proc/self", text, sizeof text) > 0);
  CHECK_EQ(std::string(text), std::to_string(getpid()));
  // The parent sees the child's pid as the child does.
  int line[2];
  CHECK_EQ(pipe(line), 0);
  const pid_t pid = forked();
  if (pid == 0) {
    const pid_t own = getpid();
    _exit(write(line[1], &own, sizeof own) == sizeof own ? 0 : 1);
  }
  pid_t said = 0;
  CHECK_EQ(read(line[0], &said, sizeof said), static_cast<ssize_t>(sizeof said));
  CHECK_EQ(said, pid);
  CHECK_EQ(wait_for(pid), 0);
  close(line[0]);
  close(line[1]);
}

void closing_everything() {
  CHECK_EQ(check::in_child([] {
             const int keep = move_point_fd();
             if (keep > 3 && syscall(SYS_close_range, 3u, static_cast<unsigned>(keep - 1), 0) != 0) return 1;
             if (syscall(SYS_close_range, static_cast<unsigned>(keep > 3 ? keep + 1 : 3), ~0u, 0) != 0)
               return 2;
             if (open("/dev/null", O_RDONLY) != 3) return 3;
             move_point();
             if (open("/dev/null", O_RDONLY) != 4) return 4;
             for (int fd = 0; fd < 1024; ++fd)
               if (fd != keep) close(fd);
             move_point();
             return open("/dev/null", O_RDONLY) == 0 ? 0 : 5;
           }),
           0);
}

/// Its parent knows a child, and may have it moved, before anybody else has heard of it. Every other one is stopped by
/// then.
void moved_as_soon_as_born() {
  for (int i = 0; i < 40; ++i) {
    int line[2];
    CHECK_EQ(pipe(line), 0);
    const pid_t child = forked();
    if (child == 0) {
      char byte;
      _exit(read(line[0], &byte, 1) == 1 ? byte : 99);
    }
    if (i % 2 == 0) CHECK_EQ(kill(child, SIGSTOP), 0);
    move_point_of(child);
    if (i % 5 == 0) move_point();
    const char byte = static_cast<char>(i);
    CHECK_EQ(write(line[1], &byte, 1), 1);
    if (i % 2 == 0) {
      int status = 0;
      CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
      CHECK(WIFSTOPPED(status));
      CHECK_EQ(kill(child, SIGCONT), 0);
    }
    const int status = wait_for(child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), i);
    close(line[0]);
    close(line[1]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "--child") == 0) return child_main(argc, argv);
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) return 2;
  own_path = path;
  return check::run(argc, argv,
                    {{"exit-codes", exit_codes},
                     {"child-is-a-copy", child_is_a_copy},
                     {"generations", generations},
                     {"many-children-at-once", many_children_at_once},
                     {"waiting-in-all-forms", waiting_in_all_forms},
                     {"vfork-shares-and-waits", vfork_shares_and_waits},
                     {"spawn-with-actions", spawn_with_actions},
                     {"exec-gives-a-new-program", exec_gives_a_new_program},
                     {"exec-that-fails-changes-nothing", exec_that_fails_changes_nothing},
                     {"scripts-are-programs", scripts_are_programs},
                     {"descriptors-over-exec", descriptors_over_exec},
                     {"signals-over-exec", signals_over_exec},
                     {"groups-and-sessions", groups_and_sessions},
                     {"orphans-get-a-new-parent", orphans_get_a_new_parent},
                     {"parent-death-is-told", parent_death_is_told},
                     {"what-a-child-inherits", what_a_child_inherits},
                     {"limits", limits},
                     {"identity", identity},
                     {"capabilities-given-up", capabilities_given_up},
                     {"rights-of-what-it-will-execute", rights_of_what_it_will_execute},
                     {"moved-as-soon-as-born", moved_as_soon_as_born},
                     {"closing-everything", closing_everything}});
}
