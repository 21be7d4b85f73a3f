#include "remote/file_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace mosix {
namespace {
constexpr uint64_t kPage = 4096;
constexpr size_t kFetchBytes = 1 << 20;
uint64_t page_up(uint64_t n) { return (n + kPage - 1) & ~(kPage - 1); }
}  // namespace

Result<std::shared_ptr<CachedFile>> CachedFile::create(const FileKey& key, const std::string& path) {
  auto file = std::make_shared<CachedFile>();
  file->key_ = key;
  file->path_ = path;
  std::string name = path.substr(path.rfind('/') + 1).substr(0, 200);
  file->writable_.reset(memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!file->writable_) return fail_errno("memfd for " + path);
  if (ftruncate(file->writable_.get(), static_cast<off_t>(key.size)) != 0)
    return fail_errno("memfd for " + path);
  std::string self = "/proc/self/fd/" + std::to_string(file->writable_.get());
  file->read_only_.reset(::open(self.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!file->read_only_ || fstat(file->read_only_.get(), &info) != 0) return fail_errno("memfd for " + path);
  file->inode_ = info.st_ino;
  return file;
}

bool CachedFile::covers_locked(uint64_t start, uint64_t end) const {
  auto after = ranges_.upper_bound(start);
  if (after == ranges_.begin()) return start >= end;
  return std::prev(after)->second >= end;
}

bool CachedFile::covers(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  return covers_locked(offset, std::min(offset + bytes, key_.size));
}

void CachedFile::add_range(uint64_t start, uint64_t end) {
  auto at = ranges_.upper_bound(start);
  if (at != ranges_.begin() && std::prev(at)->second >= start) --at;
  while (at != ranges_.end() && at->first <= end) {
    start = std::min(start, at->first);
    end = std::max(end, at->second);
    at = ranges_.erase(at);
  }
  ranges_[start] = end;
}

Status CachedFile::fill(uint64_t offset, uint64_t bytes, const Fetch& fetch) {
  std::lock_guard lock(mutex_);
  uint64_t end = std::min(page_up(offset + bytes), key_.size);
  uint64_t at = offset & ~(kPage - 1);
  std::vector<uint8_t> buffer;
  while (at < end) {
    auto after = ranges_.upper_bound(at);
    if (after != ranges_.begin() && std::prev(after)->second > at) {
      at = std::prev(after)->second;
      continue;
    }
    uint64_t until = after == ranges_.end() ? end : std::min(end, after->first);
    size_t want = std::min<uint64_t>(until - at, kFetchBytes);
    buffer.resize(want);
    TRY(size_t got, fetch(at, buffer.data(), want));
    if (got == 0) break;  // the file has shrunk: what lies beyond reads as zero
    if (pwrite(writable_.get(), buffer.data(), got, static_cast<off_t>(at)) != static_cast<ssize_t>(got))
      return fail_errno("keep contents of " + path_);
    add_range(at, at + got);
    at += got;
  }
  return {};
}

Status CachedFile::put(uint64_t offset, const void* data, size_t bytes) {
  std::lock_guard lock(mutex_);
  if (offset >= key_.size) return {};
  size_t want = std::min<uint64_t>(bytes, key_.size - offset);
  if (pwrite(writable_.get(), data, want, static_cast<off_t>(offset)) != static_cast<ssize_t>(want))
    return fail_errno("keep contents of " + path_);
  add_range(offset, offset + want);
  return {};
}

Result<size_t> CachedFile::get(uint64_t offset, void* data, size_t bytes) const {
  ssize_t n = pread(read_only_.get(), data, bytes, static_cast<off_t>(offset));
  if (n < 0) return fail_errno("read kept contents of " + path_);
  return static_cast<size_t>(n);
}

Result<std::shared_ptr<CachedFile>> FileCache::open(const FileKey& key, const std::string& path) {
  std::lock_guard lock(mutex_);
  auto found = files_.find(key);
  if (found != files_.end()) return found->second;
  TRY(std::shared_ptr<CachedFile> file, CachedFile::create(key, path));
  files_[key] = file;
  inodes_[file->inode()] = file;
  return file;
}

std::shared_ptr<CachedFile> FileCache::find(const FileKey& key) {
  std::lock_guard lock(mutex_);
  auto found = files_.find(key);
  return found == files_.end() ? nullptr : found->second;
}

std::shared_ptr<CachedFile> FileCache::by_inode(uint64_t inode) {
  std::lock_guard lock(mutex_);
  auto found = inodes_.find(inode);
  return found == inodes_.end() ? nullptr : found->second;
}

}  // namespace mosix
