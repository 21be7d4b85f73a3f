// /proc/PID of guests, in the supervisor. Home opens it, as it opens every file: names, permissions, the place in it and whatever else a
// descriptor has are home's. What it says of memory is said here.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "libmosix/process/proc_stat.h"
#include "libmosix/process/shared_memory.h"
#include "remote/home_files.h"
#include "remote/proc_view.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr size_t kMostBytes = 256 << 10;  ///< that one call gives; it may be short

bool reads(uint64_t number) {
  return number == SYS_read || number == SYS_pread64 || number == SYS_readv || number == SYS_preadv ||
         number == SYS_preadv2;
}
bool writes(uint64_t number) { return number == SYS_write || number == SYS_pwrite64; }
/// Of the other calls that move contents.
bool moves_contents(uint64_t number) {
  return number == SYS_writev || number == SYS_pwritev || number == SYS_pwritev2 || number == SYS_sendfile ||
         number == SYS_splice || number == SYS_tee || number == SYS_copy_file_range;
}

/// Where the call begins; nothing: where the last one has ended.
std::optional<uint64_t> place_of(uint64_t number, const std::array<uint64_t, 6>& args) {
  bool placed = number == SYS_pread64 || number == SYS_preadv || number == SYS_pwrite64 ||
                (number == SYS_preadv2 && args[3] != ~0ull);
  return placed ? std::optional(args[3]) : std::nullopt;
}

std::string slice(const std::string& text, uint64_t offset, size_t bytes) {
  return offset >= text.size() ? std::string() : text.substr(offset, bytes);
}

}  // namespace

/// Its process makes no direct calls as long as it has such a descriptor: nobody would see what they make of it.
void Supervisor::note_proc_file(const std::shared_ptr<Guest>& guest, uint64_t number) {
  proc_files_.add(guest->pid, number);
  stop_direct_calls(*guest, guest->has_proc_descriptor);
}

/// True: the call is answered.
bool Supervisor::meets_proc_file(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  const auto& args = call.args();
  auto first = static_cast<uint32_t>(args[0]), second = static_cast<uint32_t>(args[1]);
  if (row.number == SYS_close) proc_files_.closed(guest.pid, first, first);
  if (row.number == SYS_close_range && (args[2] & CLOSE_RANGE_CLOEXEC) == 0)
    proc_files_.closed(guest.pid, first, second);
  if (row.number == SYS_dup2 || row.number == SYS_dup3) proc_files_.closed(guest.pid, second, second);
  {
    // Another thread may be opening one.
    std::lock_guard lock(guest.mutex);
    guest.has_proc_descriptor = !proc_files_.of(guest.pid).empty();
  }

  std::optional<uint64_t> named;
  for (size_t i = 0; i < row.args.size() && !named; ++i)
    if (row.args[i].kind == ArgKind::kFd && proc_files_.has(guest.pid, static_cast<uint32_t>(args[i])))
      named = static_cast<uint32_t>(args[i]);
  if (!named) return false;
  if (makes_another_descriptor(call.number(), args)) {
    duplicate(thread, call, [&](uint64_t number) { proc_files_.add(guest.pid, number); });
    return true;
  }
  bool one_of_ours = reads(call.number()) || writes(call.number());
  if (!one_of_ours && !moves_contents(call.number())) return false;
  Result<std::string> path = path_at_home(thread, *named);
  if (!path) {
    again(thread, call, path.error());
    return true;
  }
  std::optional<ProcPath> where = parse_proc_path(*path);
  static const std::set<std::string> kOfMemory = {"maps",    "smaps",   "smaps_rollup", "status",
                                                  "statm",   "stat",    "mem",          "pagemap",
                                                  "cmdline", "environ", "auxv"};
  bool cannot_be_made = where && (where->name == "numa_maps" || where->name == "clear_refs");
  std::shared_ptr<Guest> target = where ? find_guest(where->pid) : nullptr;
  if (!where || (!cannot_be_made && !kOfMemory.contains(where->name))) {
    proc_files_.closed(guest.pid, *named, *named);
    return false;
  }
  if (target == nullptr) return false;  // home knows
  if (cannot_be_made || !one_of_ours || (writes(call.number()) && where->name != "mem")) {
    bring_home(thread, call, std::string(row.name) + " of /proc/PID/" + where->name, Afterwards::kMayReturn);
    return true;
  }
  Result<ssize_t> moved = writes(call.number()) ? write_guest_memory(thread, call, *target)
                                                : read_proc_file_here(thread, call, row, *target, *where);
  if (!moved)
    again(thread, call, moved.error());
  else if (*moved < 0)
    answer_and_deliver(thread, call, Answer::value(*moved));
  return true;
}

/// Where the descriptor stands at home.
Result<uint64_t> Supervisor::place_in_file(GuestThread& thread, PendingCall& call) {
  if (std::optional<uint64_t> place = place_of(call.number(), call.args())) return *place;
  TRY(CallReply told, ask_home(thread, plain_plan(SYS_lseek, {call.args()[0], 0, SEEK_CUR})));
  return static_cast<uint64_t>(told.result);
}

Status Supervisor::go_on_in_file(GuestThread& thread, PendingCall& call, uint64_t place) {
  if (place_of(call.number(), call.args())) return {};
  TRY(CallReply told, ask_home(thread, plain_plan(SYS_lseek, {call.args()[0], place, SEEK_SET})));
  (void)told;
  return {};
}

/// What it gives, and it is answered; or a negative errno. An error: it has to be made again.
Result<ssize_t> Supervisor::read_proc_file_here(GuestThread& thread, PendingCall& call, const SyscallRow& row,
                                                Guest& target, const ProcPath& where) {
  NotifiedMemory memory(thread.outer_tid);
  Result<CallPlan> plan = plan_call(row, call.args(), memory);
  if (!plan) return -EFAULT;
  TRY(CallReply mode, ask_home(thread, plain_plan(SYS_fcntl, {call.args()[0], F_GETFL})));
  if ((mode.result & O_ACCMODE) == O_WRONLY) return -EBADF;
  size_t room = 0;
  for (const OutRegion& out : plan->outs) room += out.max_bytes;
  TRY(uint64_t place, place_in_file(thread, call));
  std::string data;
  if (where.name == "mem" || where.name == "pagemap") {
    Result<std::string> got = guest_bytes(target, where.name, place, std::min(room, kMostBytes));
    if (!got) return -got.error().code;
    data = std::move(*got);
  } else {
    int reader = thread.guest->pid;
    uint64_t number = static_cast<uint32_t>(call.args()[0]);
    std::optional<std::string> text = place == 0 ? std::nullopt : proc_files_.text(reader, number);
    if (!text) {
      TRY(text, proc_text(thread, call, target, where));
      proc_files_.keep_text(reader, number, *text);
    }
    data = slice(*text, place, std::min(room, kMostBytes));
  }
  TRY_VOID(go_on_in_file(thread, call, place + data.size()));
  CallReply reply;
  reply.result = static_cast<int64_t>(data.size());
  size_t given = 0;
  for (const OutRegion& out : plan->outs) {
    size_t part = std::min<size_t>(out.max_bytes, data.size() - given);
    reply.outs.emplace_back(data.begin() + static_cast<ptrdiff_t>(given),
                            data.begin() + static_cast<ptrdiff_t>(given + part));
    given += part;
  }
  finish_call(thread, call, *plan, reply);
  return reply.result;
}

Result<ssize_t> Supervisor::write_guest_memory(GuestThread& thread, PendingCall& call, Guest& target) {
  const auto& args = call.args();
  TRY(CallReply mode, ask_home(thread, plain_plan(SYS_fcntl, {args[0], F_GETFL})));
  if ((mode.result & O_ACCMODE) == O_RDONLY) return -EBADF;
  std::vector<uint8_t> data(std::min<uint64_t>(args[2], kMostBytes));
  NotifiedMemory memory(thread.outer_tid);
  if (!memory.read(args[1], data.data(), data.size())) return -EFAULT;
  TRY(uint64_t place, place_in_file(thread, call));
  Result<ProcessMemory> to = ProcessMemory::open(target.outer_pid);
  bool fits = !target.is_ours(place, data.size()) && to && to->write(place, data.data(), data.size());
  if (!fits) return -EIO;
  TRY_VOID(go_on_in_file(thread, call, place + data.size()));
  answer_and_deliver(thread, call, Answer::value(static_cast<int64_t>(data.size())));
  return static_cast<ssize_t>(data.size());
}

/// Of its memory, or of its page table.
Result<std::string> Supervisor::guest_bytes(Guest& target, const std::string& name, uint64_t place,
                                            size_t bytes) {
  std::string data(bytes, '\0');
  if (name == "mem") {
    if (target.is_ours(place, bytes)) return fail(EIO, "memory of the guest");
    Result<ProcessMemory> memory = ProcessMemory::open(target.outer_pid);
    Result<size_t> got = memory ? memory->read_some(place, data.data(), bytes) : Result<size_t>(0);
    if (!got || (*got == 0 && bytes != 0)) return fail(EIO, "memory of the guest");
    data.resize(*got);
    return data;
  }
  UniqueFd file(open(("/proc/" + std::to_string(living_thread(target.outer_pid)) + "/pagemap").c_str(),
                     O_RDONLY | O_CLOEXEC));
  ssize_t got = file ? pread(file.get(), data.data(), bytes, static_cast<off_t>(place)) : -1;
  if (got < 0) return fail_errno("page table of the guest");
  data.resize(static_cast<size_t>(got));
  return data;
}

Result<std::string> Supervisor::proc_text(GuestThread& thread, PendingCall& call, Guest& target,
                                          const ProcPath& where) {
  int outer = living_thread(target.outer_pid);
  std::shared_ptr<GuestThread> one = where.tid != 0 ? target.thread(where.tid) : nullptr;
  if (one != nullptr) outer = one->outer_tid;
  auto at_home = [&](MapEntry entry) -> std::optional<MapEntry> {
    if (target.is_ours(entry.start, entry.bytes())) return std::nullopt;
    if (is_shared_anonymous(entry)) {
      entry.path = "/dev/zero";
      entry.deleted = true;
      entry.device = makedev(0, 1);
    } else if (std::shared_ptr<BoundFile> bound =
                   is_bound_memory(entry) ? bound_.of_memory({entry.device, entry.inode}) : nullptr) {
      std::tie(entry.device, entry.inode) = bound->key();
      entry.path = bound->path();
      entry.deleted = false;
    } else if (std::shared_ptr<CachedFile> file =
                   entry.has_inode() ? files_.by_inode(entry.inode) : nullptr) {
      entry.device = file->key().device;
      entry.inode = file->key().inode;
      entry.path = file->path();
      entry.deleted = false;
    }
    return entry;
  };
  if (where.name == "cmdline" || where.name == "environ" || where.name == "auxv")
    return read_memory_file(outer, where.name).value_or("");
  if (where.name == "maps") return maps_text(read_memory_file(outer, "maps").value_or(""), at_home);
  if (where.name == "smaps") return smaps_text(read_memory_file(outer, "smaps").value_or(""), at_home);
  if (where.name == "smaps_rollup")
    return rollup_text(smaps_text(read_memory_file(outer, "smaps").value_or(""), at_home));

  OwnSizes own = own_sizes(read_memory_file(outer, "maps").value_or(""), at_home);
  std::string here = read_proc_file(outer, where.name).value_or("");
  if (where.name == "statm") return statm_text(here, own);
  std::string home(8192, '\0');
  TRY(size_t got, read_file_at_home(thread, call.args()[0], 0, home.data(), home.size()));
  home.resize(got);
  if (where.name == "status") return status_text(home, here, own);
  CpuFigures used = cpu_figures(target);
  StatTimes times{used.user_ns, used.system_ns, used.children_user_ns, used.children_system_ns};
  if (one != nullptr) {
    CpuTimes mine = cpu_times(target, one.get());
    times = {mine.user_ns, mine.system_ns, used.children_user_ns, used.children_system_ns};
  }
  return stat_text(home, here, own, times);
}

}  // namespace mosix
