#include "remote/sandbox/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "libmosix/common/paths.h"
#include "remote/sandbox/init_protocol.h"

namespace mosix {
namespace {

/// With so much room kept for the stack, the kernel puts mmap_base this far below the top, and a guest's own
/// stack and mappings, made at home under other limits, find their addresses free.
constexpr rlim_t kStackRoom = 1ull << 40;
constexpr int kEndTimeoutMs = 1000;

const char* step_text(int step) {
  switch (step) {
    case kStepSetup:
      return "read its settings";
    case kStepUnshare:
      return "make user, mount, network, IPC, UTS, pid and time namespaces";
    case kStepIdMaps:
      return "map its user and group";
    case kStepClockOffsets:
      return "set the clocks";
    case kStepForkInit:
      return "fork pid 1";
    case kStepOpenLastPid:
      return "open /proc/sys/kernel/ns_last_pid";
    case kStepRoot:
      return "enter an empty root";
    case kStepSignals:
      return "set up signals";
    case kStepWriteLastPid:
      return "choose the pid";
    case kStepClone:
      return "fork";
    case kStepPidInUse:
      return "take the pid";
    case kStepDropCapabilities:
      return "drop capabilities";
    case kStepNoNewPrivileges:
      return "set no_new_privs";
    case kStepTranslate:
      return "find the process";
    default:
      return "answer";
  }
}

/// The child of vfork: runs on our memory until it executes, so only system calls, and nothing of ours
/// changes.
[[noreturn]] void execute_init(const char* path, int commands, int events) {
  // Out of the way of the numbers that they are to have.
  int high_commands = fcntl(commands, F_DUPFD, 16), high_events = fcntl(events, F_DUPFD, 16);
  if (dup2(high_commands, kInitCommandFd) < 0 || dup2(high_events, kInitEventFd) < 0) _exit(126);
  syscall(SYS_close_range, kInitEventFd + 1, ~0u, 0);
  rlimit stack{};
  if (getrlimit(RLIMIT_STACK, &stack) == 0) {
    stack.rlim_cur = std::min(kStackRoom, stack.rlim_max);
    setrlimit(RLIMIT_STACK, &stack);
  }
  char name[] = "mosix-init";
  char* arguments[] = {name, nullptr};
  char* environment[] = {nullptr};
  execve(path, arguments, environment);
  _exit(127);
}

/// vfork, because a supervisor has much memory and threads: nothing is copied, and no lock of libc is needed.
/// Signals wait meanwhile, for a handler of ours must not run in the child.
[[gnu::noinline]] int start_init(const char* path, int commands, int events) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  int pid = vfork();
  if (pid == 0) execute_init(path, commands, events);
  int error = errno;
  sigprocmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

void reap(int pid) {
  while (waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
  }
}

struct SocketPair {
  UniqueFd ours, theirs;
};

Result<SocketPair> socket_pair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair");
  return SocketPair{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

struct Sandbox::Answer {
  int error = 0;
  int step = 0;
  int pid = 0;  ///< of the credentials: in our numbers
  UniqueFd fd;
};

Result<std::unique_ptr<Sandbox>> Sandbox::create(const SandboxOptions& options) {
  std::string program = find_component("mosix-init");
  if (program.empty()) return fail(ENOENT, "find mosix-init");
  TRY(SocketPair commands, socket_pair());
  TRY(SocketPair events, socket_pair());
  int on = 1;
  if (setsockopt(commands.ours.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0)
    return fail_errno("SO_PASSCRED");
  int helper = start_init(program.c_str(), commands.theirs.get(), events.theirs.get());
  if (helper < 0) return fail_errno("start " + program);
  commands.theirs.reset();
  events.theirs.reset();

  std::unique_ptr<Sandbox> sandbox(new Sandbox());
  sandbox->commands_ = std::move(commands.ours);
  sandbox->events_ = std::move(events.ours);
  InitSetup setup{options.monotonic_offset_ns, options.boottime_offset_ns};
  // If it has not even started, the answer says so.
  (void)send(sandbox->commands_.get(), &setup, sizeof(setup), MSG_NOSIGNAL);
  Result<Answer> answer = sandbox->receive_answer();
  reap(helper);
  if (!answer) return fail(answer.error().code, "start " + program + ": it ended at once");
  if (answer->error != 0) {
    if (answer->pid != helper) reap(answer->pid);
    return fail(answer->error, std::string("sandbox: ") + step_text(answer->step));
  }
  sandbox->init_pid_ = answer->pid;
  sandbox->init_pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, answer->pid, 0)));
  if (!sandbox->init_pidfd_) return fail_errno("pidfd_open of mosix-init");
  return sandbox;
}

Sandbox::~Sandbox() {
  commands_.reset();
  if (!init_pidfd_) return;
  syscall(SYS_pidfd_send_signal, init_pidfd_.get(), SIGKILL, nullptr, 0);
  pollfd end{init_pidfd_.get(), POLLIN, 0};
  if (poll(&end, 1, kEndTimeoutMs) == 1) reap(init_pid_);
}

Result<Sandbox::Answer> Sandbox::receive_answer() {
  InitReply reply{};
  iovec piece{&reply, sizeof(reply)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got;
  do got = recvmsg(commands_.get(), &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return fail_errno("receive from mosix-init");
  Answer answer;
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET) continue;
    if (head->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials;
      memcpy(&credentials, CMSG_DATA(head), sizeof(credentials));
      answer.pid = credentials.pid;
    } else if (head->cmsg_type == SCM_RIGHTS) {
      int fd;
      memcpy(&fd, CMSG_DATA(head), sizeof(fd));
      answer.fd.reset(fd);
    }
  }
  if (got == 0) return fail(ECONNRESET, "mosix-init has ended");
  if (got != sizeof(reply)) return fail(EBADMSG, "receive from mosix-init");
  answer.error = reply.error;
  answer.step = reply.step;
  return answer;
}

Result<Sandbox::Answer> Sandbox::command(uint32_t kind, int value, const char* what) {
  std::lock_guard lock(command_mutex_);
  InitRequest request{kind, value};
  if (send(commands_.get(), &request, sizeof(request), MSG_NOSIGNAL) < 0)
    return fail(errno == EPIPE ? ECONNRESET : errno, "send to mosix-init");
  TRY(Answer answer, receive_answer());
  if (answer.error != 0)
    return fail(answer.error,
                std::string(what) + " " + std::to_string(value) + ": " + step_text(answer.step));
  return answer;
}

Result<SpawnedStub> Sandbox::spawn(int inner_pid) {
  // A guest that has gone on from here may come back while the end of what it left behind is still being waited for.
  constexpr int kTries = 100;
  std::lock_guard one_clone(clone_mutex_);
  Result<Answer> got = command(kInitSpawn, inner_pid, "fork a guest with pid");
  for (int tries = 1; !got && got.error().code == EEXIST && tries < kTries; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    got = command(kInitSpawn, inner_pid, "fork a guest with pid");
  }
  TRY(Answer answer, std::move(got));
  if (!answer.fd || answer.pid <= 0) return fail(EBADMSG, "mosix-init sent no process");
  return SpawnedStub{inner_pid, answer.pid, std::move(answer.fd)};
}

Status Sandbox::set_next_tid(int next_tid) {
  TRY([[maybe_unused]] Answer answer, command(kInitSetNextTid, next_tid, "choose tid"));
  return {};
}

Result<int> Sandbox::outer_pid(int inner_pid) {
  TRY(Answer answer, command(kInitTranslate, inner_pid, "translate pid"));
  // 0: it is in the sandbox but not to be seen from our pid namespace, which cannot be, or it ended on the
  // way.
  if (answer.pid <= 0) return fail(ESRCH, "translate pid " + std::to_string(inner_pid));
  return answer.pid;
}

Result<std::optional<ReapedGuest>> Sandbox::take_event() {
  InitEvent event{};
  ssize_t got;
  do got = recv(events_.get(), &event, sizeof(event), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::optional<ReapedGuest>();
  if (got <= 0) return fail(ECONNRESET, "mosix-init has ended");
  if (got != sizeof(event)) return fail(EBADMSG, "receive from mosix-init");
  return std::optional(ReapedGuest{event.pid, event.wait_status, static_cast<uint64_t>(event.user_us) * 1000,
                                   static_cast<uint64_t>(event.system_us) * 1000,
                                   static_cast<uint64_t>(event.peak_kib)});
}

}  // namespace mosix
