// What /proc says about a process and its threads, as values. Used by the custodian to capture, by the
// supervisor to map pids, by mosixd to watch. Everything here is a snapshot; of a process that runs it is old
// when it arrives.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

/// /proc/PID/stat. Addresses are 0 when the reader may not ptrace the process.
struct ProcStat {
  int pid = 0;
  std::string comm;
  char state = '?';  ///< R S D T t Z X I
  int ppid = 0;
  int pgrp = 0;
  int session = 0;
  int tty = 0;         ///< device number, 0 for none
  uint32_t flags = 0;  ///< PF_*: 0x00200000 kernel thread, 0x4 exiting
  uint64_t utime = 0;  ///< clock ticks, whole process
  uint64_t stime = 0;  ///< clock ticks
  int nice = 0;
  int threads = 0;
  uint64_t start_time =
      0;  ///< clock ticks after boot (of the reader's time namespace); with pid it names a process
  uint64_t rss_pages = 0;
  uint64_t start_code = 0, end_code = 0;
  uint64_t start_stack = 0;
  uint64_t start_data = 0, end_data = 0;
  uint64_t start_brk = 0;
  uint64_t arg_start = 0, arg_end = 0;
  uint64_t env_start = 0, env_end = 0;
  int exit_code = 0;  ///< wait status form

  /// A process whose first thread alone has ended is a zombie by its state, and lives.
  bool ended() const { return state == 'X' || (state == 'Z' && threads <= 1); }
};

Result<ProcStat> read_proc_stat(int pid);
/// The number by which the process shows its memory, descriptors, namespaces and folders: its own, or one of a thread that
/// lives if its first has ended. Its own number if none does, or if there is no such process.
int living_thread(int pid);
/// The same file of one thread, /proc/PID/task/TID/stat.
Result<ProcStat> read_thread_stat(int pid, int tid);
/// Parses one stat line; comm may hold blanks and parentheses.
Result<ProcStat> parse_proc_stat(const std::string& line);

/// The lines of /proc/PID/status that we use.
struct ProcStatus {
  std::string name;
  char state = '?';
  int tgid = 0;
  int pid = 0;  ///< of the thread asked for
  int ppid = 0;
  int tracer_pid = 0;
  std::array<uint32_t, 4> uid{};  ///< real, effective, saved, file system; in the reader's user namespace
  std::array<uint32_t, 4> gid{};
  std::vector<uint32_t> groups;
  uint32_t umask = 0;
  std::vector<int> ns_pid;   ///< NSpid: this thread's number from the reader's namespace inwards
  std::vector<int> ns_tgid;  ///< NStgid
  int threads = 0;
  uint64_t sig_pending = 0;         ///< bit (signal - 1); of this thread
  uint64_t shared_sig_pending = 0;  ///< of the process
  uint64_t sig_blocked = 0;
  uint64_t sig_ignored = 0;
  uint64_t sig_caught = 0;
  uint64_t cap_inheritable = 0, cap_permitted = 0, cap_effective = 0, cap_bounding = 0, cap_ambient = 0;
  bool no_new_privs = false;
  int seccomp = 0;  ///< 0 none, 1 strict, 2 filter
  int seccomp_filters = 0;
  uint64_t vm_rss_kb = 0, vm_lck_kb = 0, vm_swap_kb = 0, vm_hwm_kb = 0;
};

Result<ProcStatus> read_status_fields(int pid);
/// /proc/PID/task/TID/status.
Result<ProcStatus> read_thread_status(int pid, int tid);

/// Thread ids in ascending order, zombies included.
Result<std::vector<int>> list_threads(int pid);
/// Children of all threads of the process (/proc/PID/task/*/children), ascending.
Result<std::vector<int>> list_children(int pid);
/// The auxiliary vector as (AT_*, value), without AT_NULL.
Result<std::vector<std::pair<uint64_t, uint64_t>>> read_auxv(int pid);
/// Name of one thread, without the newline.
Result<std::string> read_comm(int pid, int tid);
/// Target of /proc/PID/exe without " (deleted)".
Result<std::string> read_exe_path(int pid);
/// Target of a link of /proc/PID: "cwd", "root", "exe", "ns/pid", "fd/3"; by way of living_thread().
Result<std::string> read_proc_link(int pid, const std::string& link);
/// A whole small file of /proc/PID: "cmdline", "limits", "stat", "task/12/syscall".
Result<std::string> read_proc_file(int pid, const std::string& file);
/// One that is empty for a thread that has ended ("maps", "smaps", "auxv"): by way of living_thread().
Result<std::string> read_memory_file(int pid, const std::string& file);
/// Are namespace `kind` ("pid", "net", "user", "mnt", "time", "ipc", "uts", "cgroup") of both processes one
/// and the same?
Result<bool> same_namespace(int pid, int other_pid, const std::string& kind);

}  // namespace mosix
