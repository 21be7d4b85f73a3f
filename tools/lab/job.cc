#include "tools/lab/job.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "tools/lab/cpu_limit.h"
#include "tools/lab/process.h"

namespace mosix::lab {
namespace {

/// Signals that a terminal or a fault raises on us, and our own children's; never passed on.
bool is_our_own(int signal) {
  return signal == SIGCHLD || signal == SIGTTIN || signal == SIGTTOU || signal == SIGSEGV ||
         signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGABRT || signal == SIGTRAP ||
         signal == SIGSYS;
}

class Job {
 public:
  Job(const JobSpec& spec, Signals& signals) : spec_(spec), signals_(signals) {
    terminal_.reset(open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC));
    bool interactive = isatty(0) && isatty(1);
    job_has_terminal_ = interactive && we_are_foreground();
  }

  ~Job() {
    take_terminal_back();
    if (between_ > 0) waitpid(between_, nullptr, 0);
  }

  Status start() {
    TRY(UniqueFd init, open_pidfd(spec_.init));
    int report[2], life[2];
    if (pipe2(report, O_CLOEXEC) != 0) return fail_errno("pipe");
    UniqueFd reader(report[0]), writer(report[1]);
    if (pipe2(life, O_CLOEXEC) != 0) return fail_errno("pipe");
    UniqueFd death(life[0]);
    life_.reset(life[1]);
    // setns to a pid namespace holds for children only, so a process in between enters the node and forks
    // the command with CLONE_PARENT: the command is ours, and our own namespaces stay as they are.
    between_ = fork();
    if (between_ < 0) return fail_errno("fork");
    if (between_ == 0) enter_and_guard(init.get(), writer.get(), death.get());
    writer.reset();
    std::string text(512, '\0');
    ssize_t got = read(reader.get(), text.data(), text.size());
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    child_ = atoi(text.c_str());
    return child_ > 0 ? Status() : fail(0, text.empty() ? "cannot enter the node" : text);
  }

  Result<int> wait() {
    for (;;) {
      pollfd entry{signals_.fd(), POLLIN, 0};
      poll(&entry, 1, -1);
      bool from_kernel = false;
      for (int signal; (signal = signals_.take(&from_kernel)) != 0;) pass_on(signal, from_kernel);
      int status = 0;
      while (waitpid(child_, &status, WNOHANG | WUNTRACED) > 0) {
        if (WIFSTOPPED(status)) {
          stopped(WSTOPSIG(status));
          continue;
        }
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      }
    }
  }

 private:
  /// The process in between. It stays, as the command's guard: when we are killed with SIGKILL, the end of
  /// the pipe tells it so, and the command does not run on behind the back of whoever killed us.
  [[noreturn]] void enter_and_guard(int init, int writer, int death) {
    life_.reset();
    Result<pid_t> child = enter_and_fork(init);
    dprintf(writer, "%s", child ? std::to_string(*child).c_str() : child.error().message().c_str());
    Result<UniqueFd> command = child ? open_pidfd(*child) : fail(child.error());
    if (!command) _exit(0);
    setsid();
    detach_stdio();
    close_all_except({command->get(), death});
    pollfd entries[] = {{command->get(), POLLIN, 0}, {death, POLLIN, 0}};
    while (poll(entries, 2, -1) < 0) {
    }
    if (entries[0].revents == 0) kill(-*child, SIGKILL);
    _exit(0);
  }

  Result<pid_t> enter_and_fork(int init) {
    int namespaces = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC;
    if (spec_.user_namespace) namespaces |= CLONE_NEWUSER;
    TRY_VOID(join_cpu_group(spec_.cpu_group));
    if (setns(init, namespaces) != 0) return fail_errno("enter the node's namespaces");
    long child = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (child < 0) return fail_errno("fork");
    if (child == 0) become_command();
    return static_cast<pid_t>(child);
  }

  [[noreturn]] void become_command() {
    setpgid(0, 0);
    // SIGTTOU is blocked, so this works from the background too. Done here, before exec, the command never
    // sees itself without the terminal.
    if (job_has_terminal_) tcsetpgrp(terminal_.get(), getpid());
    for (const auto& [name, value] : spec_.environment)
      value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
    // Before the identity changes: a folder may be entered by root only.
    if (chdir(spec_.cwd.c_str()) != 0) complain(kExitOwn, "cannot enter the directory " + spec_.cwd);
    Status dropped = drop_to(spec_.uid, spec_.gid);
    if (!dropped) complain(kExitOwn, dropped.error().what);
    std::vector<char*> argv;
    for (const std::string& word : spec_.argv) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    signals_.restore_for_child();
    execvp(argv[0], argv.data());
    complain(errno == ENOENT ? kExitNotFound : kExitCannotRun, spec_.argv[0]);
  }

  [[noreturn]] static void complain(int status, const std::string& what) {
    dprintf(2, "mosixlab: %s: %s\n", what.c_str(), strerror(errno));
    _exit(status);
  }

  /// A key of the terminal means the whole job, kill(1) means the process that it named.
  void pass_on(int signal, bool from_kernel) {
    if (is_our_own(signal)) return;
    if (signal == SIGCONT) {
      resume();
    } else if (from_kernel) {
      kill(-child_, signal);
    } else {
      kill(child_, signal);
    }
  }

  bool we_are_foreground() const { return terminal_ && tcgetpgrp(terminal_.get()) == getpgrp(); }

  /// The command has stopped. Without a terminal that is its own affair (somebody will continue it); with
  /// one, it wants the terminal, or its user pressed Ctrl-Z and wants his shell back.
  void stopped(int signal) {
    if (!terminal_) return;
    pid_t foreground = tcgetpgrp(terminal_.get());
    bool asks = signal == SIGTTIN || signal == SIGTTOU;
    if (asks && foreground == getpgrp()) {
      job_has_terminal_ = true;
      resume();
      return;
    }
    bool had_it = foreground == child_;
    if (!had_it && foreground != getpgrp() && !asks) return;
    job_wants_terminal_ = had_it || job_wants_terminal_;
    if (had_it) tcsetpgrp(terminal_.get(), getpgrp());
    job_has_terminal_ = false;
    stop_ourselves(asks ? signal : SIGTSTP);
  }

  /// Stops our whole job, as the key would have. In an orphaned group the kernel does not stop anybody: then
  /// no SIGCONT will come, and the command just goes on.
  void stop_ourselves(int signal_number) {
    sigset_t one, pending;
    sigemptyset(&one);
    sigaddset(&one, signal_number);
    kill(0, signal_number);
    sigprocmask(SIG_UNBLOCK, &one, nullptr);
    sigprocmask(SIG_BLOCK, &one, nullptr);
    sigpending(&pending);
    if (sigismember(&pending, SIGCONT) == 0) resume();
  }

  void resume() {
    if (we_are_foreground() && (job_has_terminal_ || job_wants_terminal_)) {
      tcsetpgrp(terminal_.get(), child_);
      job_has_terminal_ = true;
    }
    kill(-child_, SIGCONT);
  }

  void take_terminal_back() {
    if (terminal_ && job_has_terminal_) tcsetpgrp(terminal_.get(), getpgrp());
  }

  const JobSpec& spec_;
  Signals& signals_;
  UniqueFd terminal_;
  UniqueFd life_;  ///< closes when we end, however
  pid_t between_ = 0, child_ = 0;
  bool job_has_terminal_ = false;    ///< we gave it the terminal and have not taken it back
  bool job_wants_terminal_ = false;  ///< it had the terminal when it stopped
};

}  // namespace

Signals::Signals() {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before_);
  signal(SIGCHLD, SIG_DFL);
  fd_.reset(signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK));
}

int Signals::take(bool* from_kernel) {
  signalfd_siginfo info{};
  if (read(fd_.get(), &info, sizeof info) != sizeof info) return 0;
  if (from_kernel != nullptr) *from_kernel = info.ssi_code == SI_KERNEL;
  return static_cast<int>(info.ssi_signo);
}

void Signals::restore_for_child() const { sigprocmask(SIG_SETMASK, &before_, nullptr); }

void Signals::die_by(int signal_number) {
  signal(signal_number, SIG_DFL);
  raise(signal_number);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal_number);
  sigprocmask(SIG_UNBLOCK, &one, nullptr);
}

Result<int> run_job(const JobSpec& spec, Signals& signals) {
  Job job(spec, signals);
  TRY_VOID(job.start());
  return job.wait();
}

}  // namespace mosix::lab
