#include "deputy/exec_watch.h"

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libmosix/common/unique_fd.h"

namespace mosix {
namespace {

constexpr int kLookMs = 5;  ///< a watch that has failed lasts this much longer, for the next attempt
constexpr int kMaxInterpreters = 4;

std::string proc_path(int pid) { return "/proc/" + std::to_string(pid); }

/// The path as the process sees it.
std::string path_from(int pid, int directory, const std::string& path) {
  if (!path.empty() && path[0] == '/') return proc_path(pid) + "/root" + path;
  std::string base =
      directory == AT_FDCWD ? proc_path(pid) + "/cwd" : proc_path(pid) + "/fd/" + std::to_string(directory);
  return path.empty() ? base : base + "/" + path;
}

std::string why_file_stays(const std::string& file, const std::string& shown) {
  struct stat facts {};
  if (stat(file.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) return "";
  if ((facts.st_mode & S_ISUID) != 0) return "it executes the set-user-id program " + shown;
  if ((facts.st_mode & S_ISGID) != 0 && (facts.st_mode & S_IXGRP) != 0)
    return "it executes the set-group-id program " + shown;
  if (getxattr(file.c_str(), "security.capability", nullptr, 0) > 0)
    return "it executes " + shown + ", which has file capabilities";
  if ((facts.st_mode & 0111) != 0 && faccessat(AT_FDCWD, file.c_str(), R_OK, AT_EACCESS) != 0 &&
      errno == EACCES)
    return "it executes " + shown + ", which it may not read";
  return "";
}

/// "#! /bin/sh -e": "/bin/sh". Empty for anything else.
std::string interpreter_of(const std::string& file) {
  UniqueFd script(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  char head[256];
  ssize_t got = script ? read(script.get(), head, sizeof head) : 0;
  if (got < 3 || head[0] != '#' || head[1] != '!') return "";
  std::string line(head + 2, static_cast<size_t>(got - 2));
  line = line.substr(0, line.find('\n'));
  size_t first = line.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return line.substr(first, line.find_first_of(" \t", first) - first);
}

}  // namespace

std::string why_exec_stays(const ExecAsk& ask) {
  if (ask.pid != ask.tid) return "it executes a program from a thread other than its first";
  int directory = ask.directory;
  std::string path = ask.path;
  for (int depth = 0; depth < kMaxInterpreters; ++depth) {
    std::string file = path_from(ask.pid, directory, path);
    std::string reason = why_file_stays(file, path.empty() ? "an open file" : path);
    if (!reason.empty()) return reason;
    path = interpreter_of(file);
    if (path.empty()) return "";
    directory = AT_FDCWD;
  }
  return "";
}

Status ExecWatch::begin(int pid) {
  TRY_VOID(hands_.lock());
  auto seized = Tracee::seize(pid, PTRACE_O_TRACEEXEC);
  if (!seized) {
    hands_.release();
    return fail(std::move(seized.error()));
  }
  tracee_.emplace(std::move(*seized));
  return {};
}

Result<ExecWatch::Outcome> ExecWatch::wait() {
  for (;;) {
    auto stop = tracee_->wait_stop(kLookMs);
    if (!stop && stop.error().code != ETIMEDOUT) return fail(std::move(stop.error()));
    if (!stop) {
      if (!give_up()) continue;
      let_go();
      hands_.release();
      return Outcome::kFailed;
    }
    bool done = false;
    TRY(Outcome outcome, follow(*tracee_, *stop, &done));
    if (!done) continue;
    {
      std::lock_guard lock(mutex_);
      over_ = true;
    }
    if (outcome == Outcome::kExeced) hands_.adopt(std::move(*tracee_));
    return outcome;
  }
}

/// One stop of the watched thread. Everything but the exec itself passes as if nobody were there.
Result<ExecWatch::Outcome> ExecWatch::follow(Tracee& tracee, const StopInfo& stop, bool* done) {
  if (stop.gone()) {
    *done = true;
    return Outcome::kEnded;
  }
  if (stop.kind == StopKind::kGroupStop) {
    TRY_VOID(tracee.listen());
    return Outcome::kFailed;
  }
  if (stop.kind != StopKind::kExec) {
    TRY_VOID(tracee.resume(stop.kind == StopKind::kSignal ? stop.signal : 0));
    return Outcome::kFailed;
  }
  // From the middle of execve to the edge of user mode: the interrupt stops it there.
  for (;;) {
    TRY_VOID(tracee.interrupt());
    TRY_VOID(tracee.resume(tracee.last_stop().kind == StopKind::kSignal ? tracee.last_stop().signal : 0));
    TRY(StopInfo next, tracee.wait_stop());
    *done = next.gone() || next.kind == StopKind::kInterrupt || next.kind == StopKind::kGroupStop;
    if (next.gone()) return Outcome::kEnded;
    if (*done) return Outcome::kExeced;
  }
}

/// The thread is on its way from the exec that failed, perhaps in its next call already.
void ExecWatch::let_go() {
  constexpr int kStopLimitMs = 1000;
  while (tracee_->interrupt()) {
    auto stop = tracee_->wait_stop(kStopLimitMs);
    if (!stop || stop->gone()) break;
    if (stop->kind == StopKind::kInterrupt || stop->kind == StopKind::kGroupStop) {
      let_go_unnoticed(*tracee_);
      break;
    }
    if (!tracee_->resume(stop->kind == StopKind::kSignal ? stop->signal : 0)) break;
  }
  tracee_.reset();
}

bool ExecWatch::give_up() {
  std::lock_guard lock(mutex_);
  over_ = over_ || failed_;
  return over_;
}

void ExecWatch::tell_failed() {
  std::lock_guard lock(mutex_);
  failed_ = true;
}

bool ExecWatch::attempt_again() {
  std::lock_guard lock(mutex_);
  if (over_) return false;
  failed_ = false;
  return true;
}

}  // namespace mosix
