#include "remote/bound_files.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "libmosix/common/limits.h"
#include "libmosix/process/pagemap.h"

namespace mosix {

Result<std::shared_ptr<BoundFile>> BoundFile::create(const SharedKey& key, uint64_t bytes, uint64_t binding) {
  auto file = std::make_shared<BoundFile>();
  TRY(file->fd_, make_bound_memory(bytes));
  struct stat facts {};
  if (fstat(file->fd_.get(), &facts) != 0) return fail_errno("memory for a mapped file");
  file->key_ = key;
  file->bytes_ = bytes;
  file->binding_ = binding;
  file->memory_ = {facts.st_dev, facts.st_ino};
  return file;
}

namespace {

/// All of it, to the end of its last page, which keeps more than the file has.
class View {
 public:
  View(int fd, uint64_t bytes) : bytes_((bytes + kPageBytes - 1) / kPageBytes * kPageBytes) {
    if (bytes_ > 0) at_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  ~View() {
    if (at_ != MAP_FAILED) munmap(at_, bytes_);
  }
  View(const View&) = delete;
  Status check() const {
    return at_ == MAP_FAILED && bytes_ > 0 ? fail(ENOMEM, "see a mapped file") : Status();
  }
  uint64_t bytes() const { return bytes_; }
  uint8_t* at(uint64_t offset) const { return static_cast<uint8_t*>(at_) + offset; }

 private:
  uint64_t bytes_;
  void* at_ = MAP_FAILED;
};

}  // namespace

Status BoundFile::put(uint64_t offset, const Bytes& data) const {
  View view(fd_.get(), bytes_);
  TRY_VOID(view.check());
  if (offset > view.bytes() || data.size() > view.bytes() - offset)
    return fail(EBADMSG, "contents of a mapped file");
  if (!data.empty()) memcpy(view.at(offset), data.data(), data.size());
  return {};
}

Status BoundFile::each_part(const std::function<Status(const FileWrite&)>& act) const {
  View view(fd_.get(), bytes_);
  TRY_VOID(view.check());
  FileWrite part{.device = key_.first,
                 .inode = key_.second,
                 .size = bytes_,
                 .binding = binding_,
                 .offset = 0,
                 .data = {}};
  for (uint64_t at = 0; at < bytes_;) {
    off_t data = lseek(fd_.get(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return fail_errno("look for contents of a mapped file");
    at = static_cast<uint64_t>(data) / kPageBytes * kPageBytes;
    off_t hole = lseek(fd_.get(), data, SEEK_HOLE);
    uint64_t end = hole < 0 ? view.bytes() : static_cast<uint64_t>(hole);
    end = std::min({(end + kPageBytes - 1) / kPageBytes * kPageBytes, at + kPageRunBytes, view.bytes()});
    part.offset = at;
    part.data.assign(view.at(at), view.at(end));
    TRY_VOID(act(part));
    at = end;
  }
  return {};
}

Result<BoundPin> BoundFiles::open(const SharedKey& key, uint64_t bytes, uint64_t binding) {
  std::lock_guard lock(mutex_);
  auto at = files_.find(key);
  if (at != files_.end() && at->second->binding() != binding) {
    forget_locked(at);
    at = files_.end();
  }
  if (at == files_.end()) {
    TRY(std::shared_ptr<BoundFile> made, BoundFile::create(key, bytes, binding));
    at = files_.emplace(key, std::move(made)).first;
    count_ = files_.size();
  }
  if (at->second->bytes() != bytes) return fail(EBADMSG, "size of a mapped file");
  return BoundPin(at->second);
}

BoundPin BoundFiles::find(const SharedKey& key) {
  std::lock_guard lock(mutex_);
  auto at = files_.find(key);
  return at == files_.end() ? BoundPin() : BoundPin(at->second);
}

std::shared_ptr<BoundFile> BoundFiles::of_memory(const SharedKey& memory) {
  if (empty()) return nullptr;
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_)
    if (file->memory() == memory) return file;
  return nullptr;
}

std::vector<std::shared_ptr<BoundFile>> BoundFiles::all() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<BoundFile>> files;
  for (auto& [key, file] : files_) files.push_back(file);
  return files;
}

std::vector<BoundPin> BoundFiles::pin_all() {
  std::vector<BoundPin> pins;
  if (empty()) return pins;
  std::lock_guard lock(mutex_);
  for (auto& [key, file] : files_) pins.emplace_back(file);
  return pins;
}

void BoundFiles::forget(const BoundFile& file) {
  std::lock_guard lock(mutex_);
  auto at = files_.find(file.key());
  if (at != files_.end() && at->second.get() == &file) forget_locked(at);
}

void BoundFiles::forget_locked(std::map<SharedKey, std::shared_ptr<BoundFile>>::iterator at) {
  SharedKey key = at->first;
  std::erase_if(descriptors_, [&](const BoundDescriptor& one) { return key_of(one) == key; });
  files_.erase(at);
  count_ = files_.size();
}

void BoundFiles::add_descriptor(const BoundDescriptor& descriptor) {
  std::lock_guard lock(mutex_);
  descriptors_.insert(descriptor);
}

void BoundFiles::closed(int pid, uint64_t first, uint64_t last) {
  std::lock_guard lock(mutex_);
  std::erase_if(descriptors_, [&](const BoundDescriptor& one) {
    auto number = static_cast<uint64_t>(one.number);
    return one.pid == pid && number >= first && number <= last;
  });
}

void BoundFiles::inherit(int parent, int child) {
  std::lock_guard lock(mutex_);
  for (BoundDescriptor one : of_locked(parent)) {
    one.pid = child;
    descriptors_.insert(one);
  }
}

void BoundFiles::forget_process(int pid) {
  std::lock_guard lock(mutex_);
  std::erase_if(descriptors_, [&](const BoundDescriptor& one) { return one.pid == pid; });
}

std::optional<SharedKey> BoundFiles::file_of(int pid, uint64_t number) {
  std::lock_guard lock(mutex_);
  for (const BoundDescriptor& one : descriptors_)
    if (one.pid == pid && static_cast<uint64_t>(one.number) == number) return key_of(one);
  return std::nullopt;
}

std::vector<BoundDescriptor> BoundFiles::of_locked(int pid) const {
  std::vector<BoundDescriptor> found;
  for (const BoundDescriptor& one : descriptors_)
    if (one.pid == pid) found.push_back(one);
  return found;
}

std::vector<BoundDescriptor> BoundFiles::descriptors_of(int pid) {
  if (empty()) return {};
  std::lock_guard lock(mutex_);
  return of_locked(pid);
}

std::set<int> BoundFiles::users_of(const SharedKey& key) {
  std::lock_guard lock(mutex_);
  std::set<int> users;
  for (const BoundDescriptor& one : descriptors_)
    if (key_of(one) == key) users.insert(one.pid);
  return users;
}

}  // namespace mosix
