// The room in which the guests of one family live on this node: own user, mount, network, IPC, UTS, pid and
// time namespaces, an empty read-only root, and pid 1 of ours (mosix-init, init.cc) that forks guests with
// the pids that they have at home. One Sandbox belongs to one supervisor; its calls may come from any of the
// supervisor's threads.
//
// The supervisor itself stays outside: in its own namespaces it keeps the network, /proc and its tracing
// threads, and sees guests under OUTER pids. INNER pids are those of the namespace, equal to the pids at
// home.
//
// When the supervisor ends, or the Sandbox is destroyed, pid 1 ends, and with it the kernel kills every
// guest.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

struct SandboxOptions {
  /// Added to CLOCK_MONOTONIC and CLOCK_BOOTTIME inside, so that they read as at home. Home minus here.
  int64_t monotonic_offset_ns = 0;
  int64_t boottime_offset_ns = 0;
};

/// A child of mosix-init that waits to become a guest. It sits in an endless loop of pause(), in the image of
/// mosix-init: static, no libc, no threads, no descriptors, no rseq, no robust list, all signal actions
/// default and none blocked, a session of its own, no capabilities, NO_NEW_PRIVS. Seize and interrupt it,
/// then rebuild it: it is not stopped by job control and needs nothing more from us.
struct SpawnedStub {
  int inner_pid = 0;
  int outer_pid = 0;
  UniqueFd pidfd;
};

/// A process of the sandbox that ended and was reaped by mosix-init.
struct ReapedGuest {
  int inner_pid = 0;
  int wait_status = 0;
  uint64_t user_ns = 0;  ///< processor time of the process, all its threads
  uint64_t system_ns = 0;
  uint64_t peak_kib = 0;  ///< most memory resident at a time
};

class Sandbox {
 public:
  /// Builds the namespaces and starts mosix-init. An error names the step that failed: where a system
  /// forbids user namespaces, unshare gives EPERM or ENOSPC. The calling process may have threads.
  static Result<std::unique_ptr<Sandbox>> create(const SandboxOptions& options);
  /// Ends pid 1 and so everybody inside. Waits one second at most: tracees that their tracer neither waits
  /// for nor detaches hold up the end of the namespace, not its processes' death.
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  /// A new stub with exactly this inner pid. EEXIST: in use; EINVAL: above this node's pid_max or below 2.
  Result<SpawnedStub> spawn(int inner_pid);
  /// The next process or thread made inside gets `next_tid`. One clone at a time: hold clone_lock() from here
  /// until it has happened. Same errors as spawn, except that EEXIST is not checked.
  Status set_next_tid(int next_tid);
  /// Held by spawn; to be held by whoever makes a guest clone with a chosen number.
  std::unique_lock<std::mutex> clone_lock() { return std::unique_lock(clone_mutex_); }

  /// Our number for the process or thread that has this number inside. ESRCH: there is none.
  /// One round trip to mosix-init: the kernel translates the pid of a credentials message.
  Result<int> outer_pid(int inner_pid);
  /// pid 1, as we number it: /proc/N/ns of it are the sandbox's namespaces.
  int init_pid() const { return init_pid_; }

  /// Readable when take_event has something (or mosix-init has ended).
  int event_fd() const { return events_.get(); }
  /// The next reaped process, or nothing. ECONNRESET: mosix-init has ended and so has everybody inside.
  Result<std::optional<ReapedGuest>> take_event();

 private:
  Sandbox() = default;
  struct Answer;
  Result<Answer> receive_answer();
  Result<Answer> command(uint32_t kind, int value, const char* what);
  UniqueFd commands_;
  UniqueFd events_;
  UniqueFd init_pidfd_;
  int init_pid_ = 0;
  std::mutex command_mutex_;  ///< one request and its answer; taken after clone_mutex_
  std::mutex clone_mutex_;
};

}  // namespace mosix
