// Contents of home's files on this node, as memfds: what guests map is mapped from here, so that guests of one
// family share the pages, and a file's content crosses the wire once. Supervisor only, any thread.
//
// A cached file is sparse: only ranges that somebody mapped have been filled. Guests get read-only descriptors,
// so nobody can change it; private mappings copy on write as they do at home.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

class CachedFile {
 public:
  static Result<std::shared_ptr<CachedFile>> create(const FileKey& key, const std::string& path);

  /// Reads `bytes` at `offset` of the file at home into the buffer; returns how many there were.
  using Fetch = std::function<Result<size_t>(uint64_t offset, void* data, size_t bytes)>;
  /// Makes sure that [offset, offset + bytes) is here, as far as the file reaches.
  Status fill(uint64_t offset, uint64_t bytes, const Fetch& fetch);
  bool covers(uint64_t offset, uint64_t bytes);
  /// Content that came by itself (with an image).
  Status put(uint64_t offset, const void* data, size_t bytes);
  Result<size_t> get(uint64_t offset, void* data, size_t bytes) const;

  int read_only_fd() const { return read_only_.get(); }
  /// As /proc/PID/maps shows it.
  uint64_t inode() const { return inode_; }
  const FileKey& key() const { return key_; }
  const std::string& path() const { return path_; }

 private:
  void add_range(uint64_t start, uint64_t end);
  bool covers_locked(uint64_t start, uint64_t end) const;
  FileKey key_;
  std::string path_;
  UniqueFd writable_, read_only_;
  uint64_t inode_ = 0;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> ranges_;  ///< start -> end of what is filled
};

class FileCache {
 public:
  /// The file of that key, made if it is not here yet.
  Result<std::shared_ptr<CachedFile>> open(const FileKey& key, const std::string& path);
  /// The same, or null: none is made.
  std::shared_ptr<CachedFile> find(const FileKey& key);
  /// The file behind a memfd inode of a guest's maps, or null.
  std::shared_ptr<CachedFile> by_inode(uint64_t inode);

 private:
  std::mutex mutex_;
  std::map<FileKey, std::shared_ptr<CachedFile>> files_;
  std::map<uint64_t, std::shared_ptr<CachedFile>> inodes_;
};

}  // namespace mosix
