#include "cluster/spawn.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cstdlib>

#include "libmosix/common/paths.h"

namespace mosix {
namespace {

/// Above every number that the child hands on; the originals may lie anywhere below or above.
constexpr int kParkingFd = 64;

/// Everything that the child needs, made before fork.
struct ChildPlan {
  const char* path;
  std::vector<char*> argv;
  std::vector<int> descriptors;
  const Identity* identity;
  int report;  ///< errno is written here if the exec does not happen
};

bool take_identity(const Identity& identity) {
  return syscall(SYS_setgroups, identity.groups.size(), identity.groups.data()) == 0 &&
         syscall(SYS_setresgid, identity.gid, identity.gid, identity.gid) == 0 &&
         syscall(SYS_setresuid, identity.uid, identity.uid, identity.uid) == 0;
}

void reset_signals() {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int number = 1; number < 32; ++number)
    if (number != SIGKILL && number != SIGSTOP) sigaction(number, &plain, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

/// Moves the descriptors to 3, 4, ... by way of the parking place, so that none overwrites another.
bool place_descriptors(ChildPlan& plan) {
  for (int& fd : plan.descriptors)
    if ((fd = fcntl(fd, F_DUPFD_CLOEXEC, kParkingFd)) < 0) return false;
  if ((plan.report = fcntl(plan.report, F_DUPFD_CLOEXEC, kParkingFd)) < 0) return false;
  int target = 3;
  for (int fd : plan.descriptors)
    if (dup2(fd, target++) < 0) return false;
  unsigned report = static_cast<unsigned>(plan.report);
  return syscall(SYS_close_range, target, report - 1, 0) == 0 &&
         syscall(SYS_close_range, report + 1, ~0U, 0) == 0;
}

[[noreturn]] void child_main(ChildPlan& plan) {
  reset_signals();
  setsid();
  int null = open("/dev/null", O_RDWR);
  bool ready = null >= 0 && dup2(null, 0) >= 0 && dup2(2, 1) >= 0 && place_descriptors(plan) &&
               chdir("/") == 0 && (plan.identity == nullptr || take_identity(*plan.identity));
  if (ready) execve(plan.path, plan.argv.data(), environ);
  int error = errno;
  [[maybe_unused]] ssize_t written = write(plan.report, &error, sizeof error);
  _exit(127);
}

}  // namespace

Result<int> spawn_component(const SpawnOrder& order) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return fail_errno("pipe");
  UniqueFd read_end(report[0]), write_end(report[1]);
  ChildPlan plan{order.path.c_str(), {}, order.descriptors, nullptr, write_end.get()};
  plan.argv.push_back(const_cast<char*>(order.path.c_str()));
  for (const std::string& argument : order.arguments)
    plan.argv.push_back(const_cast<char*>(argument.c_str()));
  plan.argv.push_back(nullptr);
  if (order.identity) plan.identity = &*order.identity;

  // Blocked over the fork, so that no signal meant for mosixd runs a handler of its in the child.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  if (pid == 0) child_main(plan);
  int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return fail(fork_error, "fork for " + order.path);

  write_end.reset();
  int error = 0;
  ssize_t got;
  do got = read(read_end.get(), &error, sizeof error);
  while (got < 0 && errno == EINTR);
  if (got == static_cast<ssize_t>(sizeof error)) {
    waitpid(pid, nullptr, 0);
    return fail(error, "start " + order.path);
  }
  return static_cast<int>(pid);
}

Result<std::string> component_path(const std::string& name) {
  const char* stand_in = getenv(name == "mosix-custodian" ? "MOSIX_CUSTODIAN" : "MOSIX_SUPERVISOR");
  std::string path = stand_in != nullptr && *stand_in != '\0' ? stand_in : find_component(name);
  if (path.empty())
    return fail(ENOENT,
                name + " is neither beside mosixd nor in its libexec folder; install libmosix completely");
  if (access(path.c_str(), X_OK) != 0) return fail_errno("component " + path);
  return path;
}

Result<Identity> identity_of_user(const std::string& name) {
  errno = 0;
  const passwd* entry = getpwnam(name.c_str());
  if (entry == nullptr)
    return fail(
        0, "guest_user \"" + name + "\" is not a user of this machine; name one that is, or \"\" for root");
  return Identity{entry->pw_uid, entry->pw_gid, {}};
}

}  // namespace mosix
