// Files of home's that guests here have mapped shared and writable: bound to this node, with their contents in memory
// that the guests share (deputy/file_bindings.h is home's side). Supervisor only, any thread.
//
// Who maps one is not kept book of: their maps tell. A pin stands for a mapping that is not to be seen there yet.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

class BoundFile {
 public:
  static Result<std::shared_ptr<BoundFile>> create(const SharedKey& key, uint64_t bytes, uint64_t binding);

  const SharedKey& key() const { return key_; }  ///< of the file at home
  uint64_t bytes() const { return bytes_; }
  uint64_t binding() const { return binding_; }  ///< home's number for it
  int fd() const { return fd_.get(); }
  /// Of what stands for it here, as /proc/PID/maps shows it.
  const SharedKey& memory() const { return memory_; }
  /// Where it is at home, for people.
  void set_path(std::string path) {
    std::lock_guard lock(mutex_);
    path_ = std::move(path);
  }
  std::string path() const {
    std::lock_guard lock(mutex_);
    return path_;
  }
  Status put(uint64_t offset, const Bytes& data) const;
  /// What has contents, as messages for home.
  Status each_part(const std::function<Status(const FileWrite&)>& act) const;

  std::atomic<int> pins{0};
  /// A move has begun that takes it along: it is not for those who come to it now.
  std::atomic<bool> leaving{false};

 private:
  SharedKey key_, memory_;
  uint64_t bytes_ = 0, binding_ = 0;
  UniqueFd fd_;
  mutable std::mutex mutex_;
  std::string path_;
};

class BoundPin {
 public:
  BoundPin() = default;
  explicit BoundPin(std::shared_ptr<BoundFile> file) : file_(std::move(file)) {
    if (file_) ++file_->pins;
  }
  BoundPin(BoundPin&& other) noexcept : file_(std::move(other.file_)) { other.file_.reset(); }
  BoundPin& operator=(BoundPin&& other) noexcept {
    std::swap(file_, other.file_);
    return *this;
  }
  ~BoundPin() {
    if (file_) --file_->pins;
  }
  explicit operator bool() const { return file_ != nullptr; }
  BoundFile* operator->() const { return file_.get(); }
  BoundFile& operator*() const { return *file_; }

 private:
  std::shared_ptr<BoundFile> file_;
};

class BoundFiles {
 public:
  /// Nothing is bound: the usual case, and quickly told.
  bool empty() const { return count_ == 0; }
  /// Found, or made, also in the stead of one of an earlier binding.
  Result<BoundPin> open(const SharedKey& key, uint64_t bytes, uint64_t binding);
  BoundPin find(const SharedKey& key);
  std::shared_ptr<BoundFile> of_memory(const SharedKey& memory);
  std::vector<std::shared_ptr<BoundFile>> all();
  /// All of them, while a guest is made that has mappings of its parent's.
  std::vector<BoundPin> pin_all();
  /// If it is this one still.
  void forget(const BoundFile& file);

  void add_descriptor(const BoundDescriptor& descriptor);
  /// [first, last] of a process are closed.
  void closed(int pid, uint64_t first, uint64_t last);
  void inherit(int parent, int child);
  void forget_process(int pid);
  std::optional<SharedKey> file_of(int pid, uint64_t number);
  std::vector<BoundDescriptor> descriptors_of(int pid);
  /// Processes that have descriptors of it.
  std::set<int> users_of(const SharedKey& key);

 private:
  static SharedKey key_of(const BoundDescriptor& one) { return {one.device, one.inode}; }
  void forget_locked(std::map<SharedKey, std::shared_ptr<BoundFile>>::iterator at);
  std::vector<BoundDescriptor> of_locked(int pid) const;
  std::mutex mutex_;
  std::atomic<size_t> count_{0};
  std::map<SharedKey, std::shared_ptr<BoundFile>> files_;
  std::set<BoundDescriptor> descriptors_;
};

}  // namespace mosix
