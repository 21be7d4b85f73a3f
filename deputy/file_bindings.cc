#include "deputy/file_bindings.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "deputy/processes.h"
#include "libmosix/common/limits.h"
#include "libmosix/process/descriptor.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/pagemap.h"

namespace mosix {
namespace {

constexpr uint64_t kMaxFileBytes =
    64 << 20;  ///< more than that comes home: all of it goes over with the mapping
constexpr long kXfsMagic = 0x58465342;

bool begins_with(const std::string& text, const char* start) { return text.rfind(start, 0) == 0; }

Result<struct stat> facts_of(int fd) {
  struct stat facts {};
  if (fstat(fd, &facts) != 0) return fail_errno("look at a mapped file");
  return facts;
}

/// Where leases are local and the device of a mapping is that of the file.
bool has_local_leases(int fd) {
  struct statfs facts {};
  if (fstatfs(fd, &facts) != 0) return false;
  return facts.f_type == TMPFS_MAGIC || facts.f_type == EXT4_SUPER_MAGIC || facts.f_type == kXfsMagic;
}

Status check_kind(int fd, const struct stat& facts) {
  int flags = fcntl(fd, F_GETFL);
  if (!S_ISREG(facts.st_mode) || !has_local_leases(fd))
    return fail(EBUSY, "a file that may have other users");
  if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || (flags & (O_APPEND | O_DIRECT)) != 0)
    return fail(EBUSY, "a file that is opened in another way than for reading and writing");
  if (static_cast<uint64_t>(facts.st_size) > kMaxFileBytes) return fail(EBUSY, "a very long file");
  return {};
}

/// The last page of a file reaches behind its end, and keeps what is stored there for as long as it is mapped.
/// Neither read(2) nor write(2) comes there.
class LastPage {
 public:
  LastPage(int fd, uint64_t size) : offset_(size / kPageBytes * kPageBytes), used_(size % kPageBytes) {
    if (used_ == 0) return;
    at_ = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset_));
  }
  ~LastPage() {
    if (mapped()) munmap(at_, kPageBytes);
  }
  LastPage(const LastPage&) = delete;
  bool mapped() const { return at_ != MAP_FAILED; }
  uint64_t offset() const { return offset_; }

  // By way of the kernel: the file may become shorter.
  void get(uint8_t* page) const { move(page, false); }
  void put(const uint8_t* page) const { move(const_cast<uint8_t*>(page), true); }

 private:
  void move(uint8_t* page, bool put) const {
    Result<ProcessMemory> memory = ProcessMemory::open(getpid());
    if (!mapped() || !memory) return;
    uint64_t from = reinterpret_cast<uint64_t>(at_) + used_;
    uint8_t* data = page + used_;
    (void)(put ? memory->write(from, data, kPageBytes - used_)
               : memory->read(from, data, kPageBytes - used_));
  }
  uint64_t offset_, used_;
  void* at_ = MAP_FAILED;
};

Result<size_t> read_at(int fd, void* data, size_t bytes, uint64_t offset) {
  size_t got = 0;
  while (got < bytes) {
    ssize_t n = pread(fd, static_cast<uint8_t*>(data) + got, bytes - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read a mapped file");
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  return got;
}

Status write_at(int fd, const uint8_t* data, size_t bytes, uint64_t offset) {
  while (bytes > 0) {
    ssize_t n = pwrite(fd, data, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno("write a mapped file");
    data += n, offset += static_cast<uint64_t>(n), bytes -= static_cast<size_t>(n);
  }
  return {};
}

bool all_zero(const uint8_t* data, size_t bytes) {
  return bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0);
}

/// Pages that are as they were stay untouched: the file's times, and holes in it.
Status write_changes(int fd, const FileWrite& change, uint64_t size) {
  std::vector<uint8_t> before(kPageBytes);
  for (size_t at = 0; at < change.data.size(); at += kPageBytes) {
    uint64_t offset = change.offset + at;
    if (offset >= size) break;
    size_t bytes = std::min<uint64_t>({kPageBytes, size - offset, change.data.size() - at});
    const uint8_t* page = change.data.data() + at;
    TRY(size_t had, read_at(fd, before.data(), bytes, offset));
    if (had != bytes || memcmp(before.data(), page, bytes) != 0) TRY_VOID(write_at(fd, page, bytes, offset));
    LastPage last(fd, size);
    if (last.mapped() && last.offset() == offset && change.data.size() - at >= kPageBytes) last.put(page);
  }
  return {};
}

}  // namespace

Result<FileBindings::Bound> FileBindings::bind(const std::shared_ptr<AwayNode>& node, int pid, int number,
                                               const std::set<int>& there, const std::set<int>& away) {
  UniqueFd fd = take_descriptor(pid, number).value_or(UniqueFd());
  if (!fd) return fail(EBADF, "its descriptor");
  std::lock_guard lock(mutex_);
  TRY(struct stat facts, facts_of(fd.get()));
  if (auto at = files_.find({facts.st_dev, facts.st_ino}); at != files_.end() && at->second.node != nullptr)
    return fail(EBUSY, "a file that is mapped on " + at->second.node->name());
  TRY(Bound bound, bind_locked(node, std::move(fd), there));
  // A mapping outlives the descriptor that it was made with, and no lease tells of it. Those of deputies are of before.
  for (int other : sharers_at_home(getpid(), {bound.key}))
    if (away.count(other) == 0) {
      release_locked(files_[bound.key]);
      return fail(EBUSY, "a file that process " + std::to_string(other) + " has mapped");
    }
  return bound;
}

/// `users`: who may have descriptors of it.
Result<FileBindings::Bound> FileBindings::bind_locked(const std::shared_ptr<AwayNode>& node, UniqueFd fd,
                                                      const std::set<int>& users) {
  TRY(struct stat facts, facts_of(fd.get()));
  TRY_VOID(check_kind(fd.get(), facts));
  Bound bound;
  bound.key = {facts.st_dev, facts.st_ino};
  bound.descriptors = descriptors_of(bound.key);
  for (const BoundDescriptor& one : bound.descriptors)
    if (users.count(one.pid) == 0) return fail(EBUSY, "a file that another process has open");
  File& file = files_[bound.key];
  if (file.node != nullptr && file.node != node)
    return fail(EBUSY, "a file that is mapped on " + file.node->name());
  if (file.node == nullptr) {
    // One that has been kept from before may be of another open(2), which then is over, or is somebody else's.
    UniqueFd before = std::exchange(file.fd, std::move(fd));
    bool same = before && syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, before.get(), file.fd.get()) == 0;
    if (before && !same) fcntl(before.get(), F_SETLEASE, F_UNLCK);
    if (!same) before.reset();
    if (fcntl(file.fd.get(), F_SETLEASE, F_WRLCK) != 0)
      return fail(EBUSY, "a file that is opened more than once, or a memfd");
    file.number = ++last_number_;
    fcntl(file.fd.get(), F_SETOWN,
          getpid());  // the kernel has noted this thread, which may have ended by then
  }
  file.node = node;
  file.leaves_with = 0;
  bound.number = file.number;
  TRY(facts, facts_of(file.fd.get()));  // as it is when nobody can change it any more
  bound.size = static_cast<uint64_t>(facts.st_size);
  return bound;
}

bool FileBindings::may_be_bound(const MapEntry& entry) {
  if (!is_shared_file(entry) || begins_with(entry.path, "/SYSV") || begins_with(entry.path, "/memfd:"))
    return false;
  SharedKey key{entry.device, entry.inode};
  {
    std::lock_guard lock(mutex_);
    if (files_.count(key) != 0) return true;
  }
  for (const BoundDescriptor& one : descriptors_of(key))
    if (Result<UniqueFd> fd = take_descriptor(one.pid, one.number)) {
      Result<struct stat> facts = facts_of(fd->get());
      if (facts && check_kind(fd->get(), *facts)) return true;
    }
  return false;
}

bool FileBindings::is_bound(const SharedKey& key) {
  std::lock_guard lock(mutex_);
  auto at = files_.find(key);
  return at != files_.end() && at->second.node != nullptr;
}

Result<std::vector<FileBindings::Bound>> FileBindings::bind_mapped(const std::shared_ptr<AwayNode>& node,
                                                                   const std::vector<MapEntry>& maps,
                                                                   const std::set<int>& group) {
  std::set<SharedKey> wanted;
  for (const MapEntry& entry : maps)
    if (is_shared_file(entry)) wanted.insert({entry.device, entry.inode});
  std::vector<Bound> all;
  if (wanted.empty()) return all;
  // A private mapping has the pages of the file that it has not written itself.
  for (const MapEntry& entry : maps)
    if (!entry.shared && entry.has_inode() && wanted.count({entry.device, entry.inode}) != 0)
      return fail(0, "it has mapped " + entry.path + " both shared and privately");
  std::lock_guard lock(mutex_);
  std::vector<SharedKey> fresh;
  auto bind_all = [&]() -> Status {
    for (const SharedKey& key : wanted) {
      UniqueFd fd;
      auto held = files_.find(key);
      if (held != files_.end()) fd.reset(fcntl(held->second.fd.get(), F_DUPFD_CLOEXEC, 0));
      bool was_away = held != files_.end() && held->second.node != nullptr;
      if (!fd)
        for (const BoundDescriptor& one : descriptors_of(key))
          if (group.count(one.pid) != 0 && !fd)
            fd = take_descriptor(one.pid, one.number).value_or(UniqueFd());
      if (!fd) return fail(0, "a file that nobody has open any more");
      TRY(Bound bound, bind_locked(node, std::move(fd), group));
      if (!was_away) fresh.push_back(key);
      all.push_back(std::move(bound));
    }
    return {};
  };
  Status done = bind_all();
  if (done) return all;
  for (const SharedKey& key : fresh) release_locked(files_[key]);
  done.error().code = 0;
  done.error().what = "it has mapped " + done.error().what + ", shared and writable";
  return fail(std::move(done.error()));
}

Result<FileBindings::File*> FileBindings::find_locked(const std::shared_ptr<AwayNode>& node,
                                                      const SharedKey& key) {
  auto at = files_.find(key);
  if (at == files_.end() || at->second.node != node) return fail(EPERM, "a file that is not bound there");
  return &at->second;
}

Result<FileBindings::File*> FileBindings::find_locked(const std::shared_ptr<AwayNode>& node,
                                                      const SharedKey& key, uint64_t number) {
  TRY(File * file, find_locked(node, key));
  if (file->number != number) return fail(EPERM, "a file that has been bound anew");
  return file;
}

Status FileBindings::write(const std::shared_ptr<AwayNode>& node, const FileWrite& change) {
  std::lock_guard lock(mutex_);
  TRY(File * file, find_locked(node, {change.device, change.inode}, change.binding));
  if (change.offset % kPageBytes != 0 || change.data.size() > kPageRunBytes)
    return fail(EBADMSG, "contents of a file");
  TRY(struct stat facts, facts_of(file->fd.get()));
  Status written = write_changes(file->fd.get(), change, static_cast<uint64_t>(facts.st_size));
  if (!written) file->failure = written.error();
  return written;
}

Status FileBindings::send_contents(const std::shared_ptr<AwayNode>& node, const SharedKey& key) {
  UniqueFd fd;
  uint64_t number = 0;
  {
    std::lock_guard lock(mutex_);
    auto at = files_.find(key);
    if (at != files_.end())
      fd.reset(fcntl(at->second.fd.get(), F_DUPFD_CLOEXEC, 0)), number = at->second.number;
  }
  if (!fd) return fail(ENOENT, "a file that is not bound");
  TRY(struct stat facts, facts_of(fd.get()));
  auto size = static_cast<uint64_t>(facts.st_size);
  LastPage last(fd.get(), size);
  FileWrite part{
      .device = key.first, .inode = key.second, .size = size, .binding = number, .offset = 0, .data = {}};
  for (uint64_t at = 0; at < size; at += kPageRunBytes) {
    part.offset = at;
    part.data.assign(
        std::min<uint64_t>(kPageRunBytes, (size - at + kPageBytes - 1) / kPageBytes * kPageBytes), 0);
    TRY([[maybe_unused]] size_t got, read_at(fd.get(), part.data.data(), part.data.size(), at));
    if (last.mapped() && last.offset() >= at && last.offset() < at + part.data.size())
      last.get(part.data.data() + (last.offset() - at));
    if (!all_zero(part.data.data(), part.data.size())) TRY_VOID(node->send(ControlType::kFileContents, part));
  }
  return {};
}

Status FileBindings::settled(const std::shared_ptr<AwayNode>& node, const FileSettle& told) {
  std::lock_guard lock(mutex_);
  SharedKey key{told.device, told.inode};
  TRY(File * file, find_locked(node, key, told.binding));
  bool release = told.then == FileSettle::Then::kRelease;
  std::optional<Error> failure = std::exchange(file->failure, std::nullopt);
  if (failure && !release) return fail(std::move(*failure));
  if (told.then == FileSettle::Then::kLeave) file->leaves_with = told.pid;
  if (!release) return {};
  release_locked(*file);
  files_.erase(key);
  return {};
}

std::vector<SharedKey> FileBindings::leaving(const std::shared_ptr<AwayNode>& node,
                                             const std::set<int>& group) {
  std::lock_guard lock(mutex_);
  std::vector<SharedKey> keys;
  for (auto& [key, file] : files_)
    if (file.node == node && group.count(file.leaves_with) != 0) keys.push_back(key);
  return keys;
}

void FileBindings::stay(const std::shared_ptr<AwayNode>& node, const std::set<int>& group) {
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_)
    if (file.node == node && group.count(file.leaves_with) != 0) file.leaves_with = 0;
}

void FileBindings::moved(const SharedKey& key, const std::shared_ptr<AwayNode>& node) {
  std::lock_guard lock(mutex_);
  auto at = files_.find(key);
  if (at == files_.end()) return;
  at->second.node = node;
  at->second.leaves_with = 0;
}

void FileBindings::release(const SharedKey& key) {
  std::lock_guard lock(mutex_);
  if (auto at = files_.find(key); at != files_.end()) release_locked(at->second);
}

void FileBindings::release_locked(File& file) {
  if (file.node != nullptr && file.fd) fcntl(file.fd.get(), F_SETLEASE, F_UNLCK);
  file.node.reset();
  file.leaves_with = 0;
}

void FileBindings::lost(const std::shared_ptr<AwayNode>& node) {
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_)
    if (file.node == node) release_locked(file);
}

Result<int> FileBindings::descriptor(const std::shared_ptr<AwayNode>& node, const SharedKey& key) {
  std::lock_guard lock(mutex_);
  TRY(File * file, find_locked(node, key));
  return file->fd.get();
}

std::vector<FileBindings::Recall> FileBindings::recalls() {
  std::lock_guard lock(mutex_);
  std::vector<Recall> wanted;
  for (auto& [key, file] : files_)
    if (file.node != nullptr && fcntl(file.fd.get(), F_GETLEASE) != F_WRLCK)
      wanted.push_back({file.node, key});
  return wanted;
}

bool FileBindings::any_away() {
  std::lock_guard lock(mutex_);
  return std::any_of(files_.begin(), files_.end(),
                     [](auto& one) { return one.second.node != nullptr && one.second.node->alive(); });
}

void FileBindings::close_unmapped() {
  std::set<SharedKey> idle;
  {
    std::lock_guard lock(mutex_);
    for (auto& [key, file] : files_)
      if (file.node == nullptr) idle.insert(key);
  }
  if (idle.empty()) return;
  std::set<SharedKey> mapped = mapped_at_home(idle);
  std::lock_guard lock(mutex_);
  std::erase_if(files_, [&](auto& one) {
    return one.second.node == nullptr && idle.count(one.first) != 0 && mapped.count(one.first) == 0;
  });
}

}  // namespace mosix
