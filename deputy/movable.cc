#include "deputy/movable.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

#include "libmosix/common/limits.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {
namespace {

constexpr uint32_t kKernelThread = 0x00200000;  // PF_KTHREAD
constexpr uint64_t kUserCode64 = 0x33;          // cs of 64-bit user code

bool begins_with(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

std::string why_namespaces_stay(int pid) {
  for (const char* kind : {"pid", "net", "user", "time"}) {
    Result<bool> same = same_namespace(pid, getpid(), kind);
    if (!same) return "its namespaces cannot be read: " + same.error().message();
    if (!*same) return std::string("it lives in another ") + kind + " namespace than its node";
  }
  return "";
}

/// A vfork child and its parent, or what clone(CLONE_VM) made, move as one or not at all.
bool shares_memory(int pid, int other) {
  return syscall(SYS_kcmp, living_thread(pid), living_thread(other), KCMP_VM, 0, 0) == 0;
}

/// Descriptors whose state lies in the kernel together with the memory of the process.
std::string why_descriptors_stay(int pid) {
  std::string folder = "/proc/" + std::to_string(living_thread(pid)) + "/fd";
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) return "its descriptors cannot be listed";
  std::string reason;
  char target[64];
  while (dirent* entry = readdir(listing)) {
    ssize_t length = readlinkat(dirfd(listing), entry->d_name, target, sizeof target - 1);
    if (length <= 0) continue;
    target[length] = '\0';
    std::string name = target;
    if (name == "anon_inode:[io_uring]")
      reason = "it uses io_uring (descriptor " + std::string(entry->d_name) + ")";
    if (name == "anon_inode:[userfaultfd]")
      reason = "it uses userfaultfd (descriptor " + std::string(entry->d_name) + ")";
    if (!reason.empty()) break;
  }
  closedir(listing);
  return reason;
}

std::string why_mapping_stays(const MapEntry& entry, FileBindings& files) {
  if (entry.is_special() && !entry.is_known_special())
    return "it has a special mapping that is not known here, " + entry.path;
  if (begins_with(entry.path, "anon_inode:[io_uring]")) return "it uses io_uring";
  if (begins_with(entry.path, "/[aio]")) return "it has an asynchronous I/O context (io_setup)";
  if (begins_with(entry.path, "/anon_hugepage")) return "it uses huge pages (MAP_HUGETLB)";
  if (begins_with(entry.path, "/dev/") && !begins_with(entry.path, "/dev/shm/") && entry.path != "/dev/zero")
    return "it has mapped the device " + entry.path;
  if (!entry.shared || is_shared_anonymous(entry)) return "";
  if (begins_with(entry.path, "/SYSV")) return "it has attached shared memory (shmat)";
  if (begins_with(entry.path, "/memfd:")) return "it has mapped a memfd shared";
  if (files.may_be_bound(entry)) return "";
  if (entry.deleted) return "it has mapped " + entry.path + ", a deleted file, shared";
  if ((entry.protection & PROT_WRITE) != 0) return "it has mapped " + entry.path + " shared and writable";
  return "";
}

}  // namespace

std::string foreign_tracer(int pid) {
  Result<ProcStatus> status = read_status_fields(pid);
  std::string tracer;
  for (int before = 0;;) {
    if (!status || status->tracer_pid == 0) return "";
    tracer = std::to_string(status->tracer_pid);
    // A thread of ours: an exec is watched, or a call is being left.
    if (access(("/proc/self/task/" + tracer).c_str(), F_OK) == 0) return "";
    // One that has just let go, and ended, is not among ours any more: nor is it the tracer when that is read again.
    if (status->tracer_pid == before) break;
    before = status->tracer_pid;
    status = read_status_fields(pid);
  }
  return "it is traced by " + read_comm(status->tracer_pid, status->tracer_pid).value_or("somebody") +
         " (process " + tracer + ")";
}

std::string why_process_stays(int pid, bool held) {
  Result<ProcStat> stat = read_proc_stat(pid);
  if (!stat) return "there is no process " + std::to_string(pid);
  if ((stat->flags & kKernelThread) != 0) return "it is a thread of the kernel";
  if (stat->ended()) return "it has ended and waits for its parent (zombie)";
  Result<ProcStatus> status = read_status_fields(living_thread(pid));
  if (!status) return "there is no process " + std::to_string(pid);
  if (status->state == 'T') return "it is stopped; continue it first";
  if (status->tgid != pid)
    return std::to_string(pid) + " is a thread; name its process " + std::to_string(status->tgid);
  if (!held) {
    if (std::string tracer = foreign_tracer(pid); !tracer.empty()) return tracer;
  }
  if (status->seccomp != 0) return "it has a seccomp filter";
  if (status->threads > kMaxThreads) return "it has more than " + std::to_string(kMaxThreads) + " threads";
  if (std::string reason = why_namespaces_stay(pid); !reason.empty()) return reason;
  if (stat->ppid > 0 && shares_memory(pid, stat->ppid)) return "it shares its memory with its parent (vfork)";
  return why_descriptors_stay(pid);
}

std::string why_mappings_stay(const std::vector<MapEntry>& maps, FileBindings& files) {
  if (maps.empty()) return "it has no memory of its own";
  for (const MapEntry& entry : maps)
    if (std::string reason = why_mapping_stays(entry, files); !reason.empty()) return reason;
  return "";
}

std::string why_threads_stay(const StoppedProcess& process) {
  if (process.stop_signal != 0) return "it is stopped; continue it first";
  if (process.threads.size() > static_cast<size_t>(kMaxThreads))
    return "it has more than " + std::to_string(kMaxThreads) + " threads";
  for (const Tracee& tracee : process.threads) {
    Result<user_regs_struct> registers = tracee.registers();
    if (!registers && registers.error().code == ENOEXEC) return "it is a 32-bit program";
    if (registers && registers->cs != kUserCode64) return "it is a 32-bit program";
  }
  return "";
}

}  // namespace mosix
