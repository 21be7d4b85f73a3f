// Mappings of home's files. The file's content comes from home into a memfd (file_cache.h); the memfd is put
// into the guest's own table under the number that the guest used, and the guest's mmap runs natively, so
// protection, placement and partial pages are this kernel's business. Then home mirrors the mapping at the
// address that was chosen here, so that it keeps its identity for the way back.
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "libmosix/common/log.h"
#include "remote/home_files.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

const dev_t kZeroDevice = makedev(1, 5);

}  // namespace

void Supervisor::map_memory(GuestThread& thread, PendingCall& call) {
  const auto& args = call.args();
  uint64_t flags = args[3];
  bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  if (fixed && thread.guest->is_ours(args[0], args[1])) return call.answer(-ENOMEM);
  if ((flags & MAP_ANONYMOUS) == 0) return map_file(thread, call);
  // Shared with whoever it forks; they are together wherever they are (deputy/move_group.h).
  uint64_t type = flags & MAP_TYPE;
  if (type != MAP_PRIVATE && type != MAP_SHARED)
    return bring_home(thread, call, "mmap of droppable memory", Afterwards::kMayReturn);
  // Where none are set aside, as on most machines, programs go on without.
  if ((flags & MAP_HUGETLB) != 0) return try_mapping_at_home(thread, call, "mmap of huge pages");
  if ((flags & MAP_LOCKED) != 0 && !set_lock_limit(thread, call, syscall_row(SYS_mmap))) return;
  call.let_run_here();
}

/// Home is asked whether there can be such a mapping, anywhere, for home's memory is not what the guest has. What it gives
/// is given back, and made again when the guest is there.
void Supervisor::try_mapping_at_home(GuestThread& thread, PendingCall& call, const char* reason) {
  const auto& args = call.args();
  constexpr uint64_t kHereOnly = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED;
  CallReply reply;
  CallPlan ask = plain_plan(SYS_mmap, {0, args[1], args[2], args[3] & ~kHereOnly, args[4], args[5]});
  if (!ask_for_call(thread, call, ask, kErestartnointr, &reply)) return;
  if (reply.result < 0) return answer_and_deliver(thread, call, Answer::value(reply.result));
  CallPlan drop = plain_plan(SYS_munmap, {static_cast<uint64_t>(reply.result), args[1]});
  if (Result<CallReply> dropped = exchange_to_end(thread, drop); !dropped)
    return again(thread, call, dropped.error());
  bring_home(thread, call, reason, Afterwards::kMayReturn);
}

/// A question to home that came to nothing: the guest's call is made again, or its channel is lost.
void Supervisor::again(GuestThread& thread, PendingCall& call, const Error& error) {
  if (error.code != kFrozen && error.code != ERESTART) return lose_channel(thread, call, error);
  if (thread.guest->freezing) return answer_when_interrupted(thread, call, kErestartnointr);
  answer_and_deliver(thread, call, Answer::value(kErestartnointr));
}

void Supervisor::map_file(GuestThread& thread, PendingCall& call) {
  const auto& args = call.args();
  CallPlan stat_plan = buffer_plan(SYS_fstat, {args[4], 0, 0, 0, 0, 0}, -1, nullptr, 0, 1,
                                   sizeof(struct stat), OutRule::kFixed, 0);
  Result<CallReply> asked = ask_home(thread, stat_plan);
  if (!asked) return again(thread, call, asked.error());
  if (asked->result < 0) return call.answer(asked->result);
  struct stat info {};
  if (asked->outs.empty() || asked->outs[0].size() != sizeof info)
    return lose_channel(thread, call, Error{EBADMSG, "fstat at home"});
  memcpy(&info, asked->outs[0].data(), sizeof info);
  bool writable_sharing = (args[3] & MAP_TYPE) != MAP_PRIVATE && (args[2] & PROT_WRITE) != 0;
  if (S_ISCHR(info.st_mode) && info.st_rdev == kZeroDevice) return map_zero_device(thread, call);
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) return bring_home(thread, call, "mmap of a device");
  // Of most of these there are no mappings.
  if (!S_ISREG(info.st_mode)) return try_mapping_at_home(thread, call, "mmap of a device");
  SharedKey shared{info.st_dev, info.st_ino};
  if (writable_sharing || bound_.find(shared)) return map_shared_file(thread, call, shared);
  if (args[1] == 0 || args[5] % 4096 != 0) return call.answer(-EINVAL);

  FileKey key{.device = info.st_dev,
              .inode = info.st_ino,
              .size = static_cast<uint64_t>(info.st_size),
              .mtime_ns = info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec};
  Result<std::shared_ptr<CachedFile>> file(files_.find(key));
  if (*file == nullptr) file = files_.open(key, path_at_home(thread, args[4]).value_or(""));
  if (!file) return call.answer(-ENOMEM);
  Status filled = (*file)->fill(args[5], args[1], [&](uint64_t offset, void* data, size_t bytes) {
    return read_file_at_home(thread, args[4], offset, data, bytes);
  });
  if (!filled) {
    int code = filled.error().code;
    if (code == kFrozen || code == ERESTART || code == EPIPE || code == EBADMSG)
      return again(thread, call, filled.error());
    return call.answer(code == EBADF ? -EACCES : -code);  // not open for reading
  }

  map_descriptor(thread, call, (*file)->read_only_fd(), Mirrored::kYes);
}

/// One is as good as another: this node's, open in the same way.
void Supervisor::map_zero_device(GuestThread& thread, PendingCall& call) {
  Result<CallReply> opened = ask_home(thread, plain_plan(SYS_fcntl, {call.args()[4], F_GETFL}));
  if (!opened) return again(thread, call, opened.error());
  UniqueFd zero(open("/dev/zero", (static_cast<int>(opened->result) & O_ACCMODE) | O_CLOEXEC));
  if (opened->result < 0 || !zero) return bring_home(thread, call, "mmap of a device");
  map_descriptor(thread, call, zero.get(), Mirrored::kNo);
}

/// The guest's own call, with `fd` in its table under the number that it names.
void Supervisor::map_descriptor(GuestThread& thread, PendingCall& call, int fd, Mirrored mirrored) {
  Guest& guest = *thread.guest;
  const auto& args = call.args();
  auto number = static_cast<int>(args[4]);
  if (int first = guest.first_channel; first >= 0 && number >= first - 1 && number < first + kSlotCount)
    return bring_home(thread, call, "mmap of a descriptor with a very high number");
  std::unique_lock tracing = lock_tracer(thread);
  if (!tracing) return answer_when_interrupted(thread, call, kErestartnointr);
  if (!call.give_descriptor(fd, number)) {
    log_error("guest " + std::to_string(guest.pid) + ": descriptor for mmap");
    return call.answer(-ENOMEM);
  }
  Result<Tracee> tracee = seize_caller(thread, call);
  if (!tracee) return call.abandon();
  tracee->interrupt();
  call.let_run_here();
  Result<StopInfo> stop = tracee->wait_stop(kStageTimeoutMs);
  if (!stop || stop->gone()) return;
  Result<user_regs_struct> registers = tracee->registers();
  if (registers) call.note_result(static_cast<int64_t>(registers->rax));
  if (registers && static_cast<int64_t>(registers->rax) > -4096 && static_cast<int64_t>(registers->rax) < 0)
    return;
  if (registers && mirrored == Mirrored::kYes) {
    uint64_t flags = (args[3] & ~static_cast<uint64_t>(MAP_FIXED_NOREPLACE)) | MAP_FIXED;
    Result<CallReply> reply = exchange_to_end(
        thread, plain_plan(SYS_mmap, {registers->rax, args[1], args[2], flags, args[4], args[5]}));
    // A mapping that home could not mirror keeps its contents here, and takes them along in full.
    if (!reply || reply->result < 0) log_debug("home did not mirror a mapping");
  }
  put_signals(thread, *tracee);
}

}  // namespace mosix
