// An execve that is about to happen in a process at home: watched by ptrace for its moment, so that the new
// image can be taken before its first instruction (also if it is static, or has an empty environment).
// The watch lives in one thread; others tell it that the exec has failed, or that another attempt follows
// (a shell that looks along PATH makes several within a millisecond).
#pragma once

#include <mutex>
#include <string>

#include "deputy/held_process.h"
#include "libmosix/common/messages.h"

namespace mosix {

/// Why this exec must not be watched or made by a deputy: a tracer would take a set-id program's rights away,
/// and an unreadable one cannot be copied. Empty: nothing is in the way (also if the file does not exist).
std::string why_exec_stays(const ExecAsk& ask);

class ExecWatch {
 public:
  explicit ExecWatch(HeldProcess& hands) : hands_(hands) {}

  /// In the thread that will wait.
  Status begin(int pid);
  enum class Outcome { kExeced, kFailed, kEnded };
  /// kExeced: the process stands before the first instruction of the new image, held by `hands`.
  /// kFailed: told so; the process is let go.
  Result<Outcome> wait();

  /// From other threads. attempt_again: true if the watch still stands and serves the next attempt too.
  void tell_failed();
  bool attempt_again();

 private:
  bool give_up();
  void let_go();
  Result<Outcome> follow(Tracee& tracee, const StopInfo& stop, bool* done);
  HeldProcess& hands_;
  std::optional<Tracee> tracee_;
  std::mutex mutex_;
  bool failed_ = false;
  bool over_ = false;
};

}  // namespace mosix
