// Memories for tests of what reads and writes a guest: the test's own, as the kernel sees it, and one of a
// few bytes at an address that does not exist.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "libmosix/syscalls/guest_memory.h"

namespace mosix::fakes {

/// The memory of this process, read and written by the kernel, so that bad addresses are EFAULT.
class OwnMemory : public GuestMemory {
 public:
  Status read(uint64_t address, void* data, size_t bytes) override {
    if (bytes == 0 || copy(process_vm_readv, address, data, bytes) == bytes) return {};
    return fail(EFAULT, "read");
  }
  Status write(uint64_t address, const void* data, size_t bytes) override {
    ++writes;
    if (bytes == 0 || copy(process_vm_writev, address, const_cast<void*>(data), bytes) == bytes) return {};
    return fail(EFAULT, "write");
  }
  size_t read_some(uint64_t address, void* data, size_t bytes) override {
    // Page by page: the kernel answers for whole pieces only.
    size_t done = 0;
    while (done < bytes) {
      const size_t piece = std::min<size_t>(4096 - (address + done) % 4096, bytes - done);
      if (copy(process_vm_readv, address + done, static_cast<char*>(data) + done, piece) != piece) break;
      done += piece;
    }
    return done;
  }

  int writes = 0;

 private:
  template <class Copy>
  static size_t copy(Copy vm_copy, uint64_t address, void* data, size_t bytes) {
    iovec here{data, bytes}, there{reinterpret_cast<void*>(address), bytes};
    const ssize_t copied = vm_copy(getpid(), &here, 1, &there, 1, 0);
    return copied < 0 ? 0 : static_cast<size_t>(copied);
  }
};

/// One range of bytes.
class RangeMemory : public GuestMemory {
 public:
  RangeMemory(uint64_t base, std::vector<uint8_t> content) : base_(base), content_(std::move(content)) {}

  Status read(uint64_t address, void* data, size_t bytes) override {
    if (room(address) < bytes) return fail(EFAULT, "read");
    if (bytes != 0) memcpy(data, content_.data() + (address - base_), bytes);
    return {};
  }
  Status write(uint64_t address, const void* data, size_t bytes) override {
    if (room(address) < bytes) return fail(EFAULT, "write");
    if (bytes != 0) memcpy(content_.data() + (address - base_), data, bytes);
    return {};
  }
  size_t read_some(uint64_t address, void* data, size_t bytes) override {
    const size_t count = std::min<size_t>(room(address), bytes);
    if (count != 0) memcpy(data, content_.data() + (address - base_), count);
    return count;
  }
  const std::vector<uint8_t>& content() const { return content_; }

 private:
  size_t room(uint64_t address) const {
    return address >= base_ && address - base_ <= content_.size() ? content_.size() - (address - base_) : 0;
  }
  uint64_t base_;
  std::vector<uint8_t> content_;
};

}  // namespace mosix::fakes
