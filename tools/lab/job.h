// A command in a node, and this process as its shell: terminal, job control, signals, exit status.
//
// The command gets a process group of its own (its number is one of the node's pid namespace, so getpgrp()
// there is not 0) and the front end treats it as a shell treats a job. With a terminal on stdin and stdout
// it has the terminal from the start; otherwise the front end keeps it, passes Ctrl-C on, and hands it over
// when the command stops because it asks for it (SIGTTIN, SIGTTOU): `mosixlab run ... | less` works.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// env(1)'s statuses for failures that are not the command's.
inline constexpr int kExitOwn = 125, kExitCannotRun = 126, kExitNotFound = 127;

struct JobSpec {
  pid_t init = 0;         ///< of the node
  std::string cpu_group;  ///< "" for none
  bool user_namespace = false;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string cwd;  ///< inside the node
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> environment;  ///< set; an empty value unsets
};

/// Blocks every signal of this process that can be blocked, and reads them as events. Once, at the start of
/// main; the command gets the mask that was there before.
class Signals {
 public:
  Signals();
  int fd() const { return fd_.get(); }
  /// The next signal that has arrived, or 0. `from_kernel`: by a key of the terminal.
  int take(bool* from_kernel = nullptr);
  void restore_for_child() const;
  /// Ends this process by `signal`, as its parent expects to see it; returns when that does not kill.
  void die_by(int signal);

 private:
  UniqueFd fd_;
  sigset_t before_;
};

/// Runs the command to its end. Returns its exit status, 128+n when a signal ended it; an error is ours.
Result<int> run_job(const JobSpec& spec, Signals& signals);

}  // namespace mosix::lab
