// Shared writable mappings of home's files, made here. The file is bound to this node first (bound_files.h): home proves
// that nobody else has it open, sends its contents, and lets nobody open it who has not waited for what changes here.
// That goes home when nobody here maps the file any more, when somebody at home wants it, and with every move.
//
// The descriptors that lead to such a file are at home, where its contents are old: a call that names one brings its
// process home, with all who map the file, unless the contents have no part in it.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "libmosix/common/limits.h"
#include "libmosix/common/log.h"
#include "libmosix/process/maps.h"
#include "remote/home_files.h"
#include "remote/supervisor.h"

namespace mosix {
namespace {

constexpr auto kAnswerLimit = std::chrono::milliseconds(kStageTimeoutMs);

/// Commands of fcntl that have nothing to do with contents, and make no further descriptor.
bool is_harmless_command(uint64_t command) {
  switch (command) {
    case F_GETFD:
    case F_SETFD:
    case F_GETFL:
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return true;
    default:
      return false;
  }
}

/// Calls with a descriptor that the contents of its file have no part in. Their answers are home's, and true: nobody can
/// change the size of a bound file.
bool is_harmless(uint64_t number, const std::array<uint64_t, 6>& args) {
  switch (number) {
    case SYS_fstat:
    case SYS_newfstatat:
    case SYS_statx:
    case SYS_fstatfs:
    case SYS_flock:
    case SYS_fchmod:
    case SYS_fchown:
    case SYS_fgetxattr:
    case SYS_flistxattr:
    case SYS_mmap:
      return true;
    case SYS_lseek:
      return args[2] <= SEEK_END;
    case SYS_fcntl:
      return is_harmless_command(args[1]);
    default:
      return false;
  }
}

bool sends_descriptors(uint64_t number, const std::array<uint64_t, 6>& args, int outer_tid) {
  if (number == SYS_sendmmsg) return true;
  if (number != SYS_sendmsg) return false;
  msghdr message{};
  NotifiedMemory memory(outer_tid);
  return !memory.read(args[1], &message, sizeof message) || message.msg_controllen != 0;
}

}  // namespace

bool makes_another_descriptor(uint64_t number, const std::array<uint64_t, 6>& args) {
  bool by_fcntl = number == SYS_fcntl && (args[1] == F_DUPFD || args[1] == F_DUPFD_CLOEXEC);
  return number == SYS_dup || number == SYS_dup2 || number == SYS_dup3 || by_fcntl;
}

void Supervisor::map_shared_file(GuestThread& thread, PendingCall& call, const SharedKey& key) {
  const auto& args = call.args();
  if ((args[3] & MAP_TYPE) != MAP_SHARED)
    return bring_home(thread, call, "private mapping of a file that is mapped shared",
                      Afterwards::kMayReturn);
  if (args[1] == 0 || args[5] % 4096 != 0) return call.answer(-EINVAL);
  Result<CallReply> opened = exchange(thread, plain_plan(SYS_fcntl, {args[4], F_GETFL}));
  if (opened && opened->verdict == Verdict::kRestart)
    opened = fail(ERESTART, "home has a signal for the guest");
  if (!opened) return again(thread, call, opened.error());
  if (opened->result < 0) return call.answer(opened->result);
  if ((opened->result & O_ACCMODE) != O_RDWR) return call.answer(-EACCES);
  Result<BoundPin> file = bind(*thread.guest, key, static_cast<int>(args[4]));
  if (!file)
    return bring_home(thread, call, "writable shared mapping of " + file.error().what,
                      Afterwards::kMayReturn);
  if ((*file)->path().empty()) (*file)->set_path(path_at_home(thread, args[4]).value_or(""));
  map_descriptor(thread, call, (*file)->fd(), Mirrored::kYes);
}

Result<BoundPin> Supervisor::bind(const Guest& guest, const SharedKey& key, int number) {
  std::lock_guard lock(bound_mutex_);
  if (BoundPin known = bound_.find(key)) {
    if (known->leaving) return fail(EBUSY, "a file that is being moved");
    return known;
  }
  TRY(std::vector<MapEntry> maps, read_maps(guest.outer_pid));
  for (const MapEntry& entry : maps)
    if (std::shared_ptr<CachedFile> file = entry.has_inode() ? files_.by_inode(entry.inode) : nullptr;
        file != nullptr && SharedKey{file->key().device, file->key().inode} == key)
      return fail(EBUSY, "a file that is mapped in another way");
  FileBind ask{.question = 0, .pid = guest.pid, .number = number};
  TRY(FileTold told, ask_about_file(ask.question, [&] {
        return send_control(ControlType::kFileBind, encode_message(ask));
      }));
  if (told.code != 0) return fail(told.code, told.reason);
  if (SharedKey{told.device, told.inode} != key) {
    give_back({told.device, told.inode}, told.binding);
    return fail(EBUSY, "another file than home names");
  }
  for (const BoundDescriptor& descriptor : told.descriptors) note_bound_descriptor(descriptor);
  return bound_.open(key, told.size, told.binding);
}

Result<FileTold> Supervisor::ask_about_file(uint32_t& question, const std::function<Status()>& send) {
  {
    std::unique_lock lock(registry_mutex_);
    question = next_file_question_++;
    if (question == 0) question = next_file_question_++;
    file_answers_[question].reset();
  }
  Status sent = send();
  std::unique_lock lock(registry_mutex_);
  if (sent)
    registry_changed_.wait_for(lock, kAnswerLimit, [&] { return file_answers_[question].has_value(); });
  std::optional<FileTold> answer = std::move(file_answers_[question]);
  file_answers_.erase(question);
  TRY_VOID(std::move(sent));
  if (!answer) return fail(ETIMEDOUT, "home does not answer about a mapped file");
  return std::move(*answer);
}

/// Nobody here has use for it, and nothing was changed.
void Supervisor::give_back(const SharedKey& key, uint64_t binding) {
  if (binding == 0) return;  // an answer of another kind
  FileSettle release{.question = 0,
                     .device = key.first,
                     .inode = key.second,
                     .binding = binding,
                     .then = FileSettle::Then::kRelease,
                     .pid = 0};
  (void)send_control(ControlType::kFileSettle, encode_message(release));
}

/// Its process makes no direct calls as long as it has such a descriptor: nobody would look at them.
void Supervisor::note_bound_descriptor(const BoundDescriptor& descriptor) {
  bound_.add_descriptor(descriptor);
  std::shared_ptr<Guest> guest = find_guest(descriptor.pid);
  if (guest == nullptr) return;
  stop_direct_calls(*guest, guest->has_bound_descriptor);
}

void Supervisor::stop_direct_calls(Guest& guest, std::atomic<bool>& reason) {
  std::lock_guard lock(guest.mutex);
  reason = true;
  for (auto& [tid, thread] : guest.threads)
    if (DirectPath* direct = thread->direct) direct->close();
}

/// True: the call is answered.
bool Supervisor::meets_bound_file(GuestThread& thread, PendingCall& call, const SyscallRow& row) {
  Guest& guest = *thread.guest;
  const auto& args = call.args();
  std::vector<BoundDescriptor> own;
  {
    // Another thread may be binding one.
    std::lock_guard lock(guest.mutex);
    own = bound_.descriptors_of(guest.pid);
    guest.has_bound_descriptor = !own.empty();
  }
  if (own.empty()) return false;
  auto first = static_cast<uint32_t>(args[0]), second = static_cast<uint32_t>(args[1]);
  bool takes_over = row.number == SYS_dup2 || row.number == SYS_dup3;
  if (row.number == SYS_close) bound_.closed(guest.pid, first, first);
  if (row.number == SYS_close_range && (args[2] & CLOSE_RANGE_CLOEXEC) == 0)
    bound_.closed(guest.pid, first, second);
  if (takes_over && !bound_.file_of(guest.pid, first)) bound_.closed(guest.pid, second, second);
  if (row.number == SYS_close || row.number == SYS_close_range || is_harmless(call.number(), args))
    return false;

  std::optional<SharedKey> named;
  if (row.number == SYS_execve || row.number == SYS_execveat)
    named = left_open_by_exec(thread, own);
  else if (sends_descriptors(call.number(), args, thread.outer_tid))
    named = SharedKey{own[0].device, own[0].inode};
  for (size_t i = 0; i < row.args.size() && !named; ++i)
    if (row.args[i].kind == ArgKind::kFd || row.args[i].kind == ArgKind::kDirFd)
      named = bound_.file_of(guest.pid, static_cast<uint32_t>(args[i]));
  if (!named) return false;
  if (makes_another_descriptor(call.number(), args)) {
    duplicate(thread, call, [&](uint64_t number) {
      bound_.closed(guest.pid, number, number);  // what it may have led to before
      bound_.add_descriptor({guest.pid, static_cast<int32_t>(number), named->first, named->second});
    });
    return true;
  }
  release_unmapped();
  BoundPin file = bound_.find(*named);
  if (!file) return false;  // home has all of it
  bool syncs = row.number == SYS_fsync || row.number == SYS_fdatasync;
  if (syncs && write_home(*file, FileSettle::Then::kStay, true)) return false;
  bring_home(thread, call, std::string(row.name) + " with a file that is mapped shared and writable",
             Afterwards::kMayReturn);
  return true;
}

void Supervisor::duplicate(GuestThread& thread, PendingCall& call,
                           const std::function<void(uint64_t number)>& note) {
  CallPlan plan = plain_plan(static_cast<uint32_t>(call.number()), call.args());
  for (;;) {
    Result<CallReply> reply = exchange(thread, plan);
    if (reply && reply->verdict == Verdict::kDone && reply->result >= 0)
      note(static_cast<uint64_t>(reply->result));
    if (finish_call(thread, call, plan, reply)) return;
  }
}

std::optional<SharedKey> Supervisor::left_open_by_exec(GuestThread& thread,
                                                       const std::vector<BoundDescriptor>& own) {
  for (const BoundDescriptor& one : own) {
    Result<CallReply> flags =
        exchange(thread, plain_plan(SYS_fcntl, {static_cast<uint64_t>(one.number), F_GETFD}));
    bool closes =
        flags && flags->verdict == Verdict::kDone && flags->result >= 0 && (flags->result & FD_CLOEXEC) != 0;
    if (!closes) return SharedKey{one.device, one.inode};
  }
  return std::nullopt;
}

std::vector<std::shared_ptr<Guest>> Supervisor::all_guests() {
  std::shared_lock lock(registry_mutex_);
  std::vector<std::shared_ptr<Guest>> guests;
  for (auto& [pid, guest] : guests_) guests.push_back(guest);
  return guests;
}

/// 0: nobody. One that cannot be looked into, and has not ended, may map anything.
int Supervisor::who_maps(const BoundFile& file) {
  for (const std::shared_ptr<Guest>& guest : all_guests()) {
    Result<std::vector<MapEntry>> maps = read_maps(guest->outer_pid);
    bool ended = !maps && maps.error().code == ESRCH;
    if (!ended && (!maps || maps_any_of(*maps, {file.memory()}))) return guest->pid;
  }
  return 0;
}

/// With an answer, home has it all when this returns.
Status Supervisor::write_home(const BoundFile& file, FileSettle::Then then, bool answered, int pid) {
  TRY_VOID(file.each_part(
      [&](const FileWrite& part) { return send_control(ControlType::kFileWrite, encode_message(part)); }));
  FileSettle settle{.question = 0,
                    .device = file.key().first,
                    .inode = file.key().second,
                    .binding = file.binding(),
                    .then = then,
                    .pid = pid};
  auto send = [&] { return send_control(ControlType::kFileSettle, encode_message(settle)); };
  if (!answered) return send();
  TRY(FileTold told, ask_about_file(settle.question, send));
  if (told.code != 0) return fail(told.code, told.reason);
  return {};
}

/// Files that nobody here maps any more are home's again. Not for the thread that hears home's answers.
void Supervisor::release_unmapped() {
  if (bound_.empty()) return;
  std::lock_guard lock(bound_mutex_);
  for (const std::shared_ptr<BoundFile>& file : bound_.all()) {
    if (file->pins != 0 || file->leaving || who_maps(*file) != 0) continue;
    // Whoever has a descriptor may read it at once.
    bool answered = !bound_.users_of(file->key()).empty();
    Status written = write_home(*file, FileSettle::Then::kRelease, answered);
    if (!written) log_error("a file that was mapped here: " + written.error().message());
    bound_.forget(*file);
  }
}

/// A stopped guest is about to leave, with all who have descriptors of the same files. What nobody here maps (any more, or
/// yet: its mmap may just have been broken off) has to be home's before, for it may be changed there as soon as the guest
/// is there; a release that comes later would put back what is old.
Status Supervisor::release_before_leaving(int pid) {
  for (const std::shared_ptr<BoundFile>& file : bound_.all()) {
    if (bound_.users_of(file->key()).count(pid) == 0) continue;
    // A worker that has just left its guest's mmap holds it for a moment.
    for (int waited = 0; file->pins != 0 && who_maps(*file) == 0; ++waited) {
      if (waited == kStageTimeoutMs) return fail(EBUSY, "a file that is about to be mapped");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  release_unmapped();
  return {};
}

void Supervisor::release_unmapped_soon() {
  if (!bound_.empty()) std::thread([this] { release_unmapped(); }).detach();
}

/// Home repeats it, should the file be on its way here.
void Supervisor::recall_file(const SharedKey& key) {
  release_unmapped();
  for (const std::shared_ptr<BoundFile>& file : bound_.all()) {
    if (file->key() != key) continue;
    int pid = who_maps(*file);
    if (pid == 0) return;
    WantHome want{.pid = pid, .reason = "somebody opens a file that it has mapped shared and writable"};
    (void)send_control(ControlType::kWantHome, encode_message(want));
  }
}

/// A stopped guest is about to move: what its files have here goes home first, each by one of those who map it.
Status Supervisor::write_files_home(const ProcessState& state, SharedClaims& claims) {
  for (const Area& area : state.areas) {
    if (area.kind != AreaKind::kBound || !claims.claim_file(key_of(area))) continue;
    BoundPin file = bound_.find(key_of(area));
    if (!file) return fail(ENOENT, "a mapped file is not known");
    {
      std::lock_guard lock(bound_mutex_);
      file->leaving = true;
    }
    TRY_VOID(write_home(*file, FileSettle::Then::kLeave, true, state.pid));
  }
  return {};
}

/// One that mapped them is gone, or has not moved. They are gone with the last of those who do; if that one has not moved
/// but ended, nobody else has told home so.
void Supervisor::end_leaving(const ProcessState& state, bool gone) {
  std::set<SharedKey> keys;
  for (const Area& area : state.areas)
    if (area.kind == AreaKind::kBound) keys.insert(key_of(area));
  for (const SharedKey& key : keys) {
    std::lock_guard lock(bound_mutex_);
    BoundPin file = bound_.find(key);
    if (!file || !file->leaving) continue;
    if (!gone) {
      file->leaving = false;
    } else if (who_maps(*file) == 0) {
      bound_.forget(*file);
      give_back(key, file->binding());
    }
  }
}

}  // namespace mosix
