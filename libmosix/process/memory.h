// The memory of another process, two ways: /proc/PID/mem, which ignores page protection (FOLL_FORCE: a write
// to read-only private memory makes a private copy), and process_vm_readv/writev, which respect it, need no
// descriptor and cost one call for many ranges. Both need ptrace access to the process, not an attachment.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// /proc/PID/mem, opened once. It names the address space that the process had when it was opened: after an
/// execve all reads give 0 bytes (reported as ESRCH). May be used from any thread, also several at once.
class ProcessMemory {
 public:
  static Result<ProcessMemory> open(int pid);

  /// Reads or writes exactly `bytes`, or fails (EIO where nothing is mapped).
  Status read(uint64_t address, void* buffer, size_t bytes) const;
  Status write(uint64_t address, const void* buffer, size_t bytes) const;
  /// Reads up to the first page that cannot be read; the count may be 0.
  Result<size_t> read_some(uint64_t address, void* buffer, size_t bytes) const;
  /// A zero-terminated string without its zero; ENAMETOOLONG if it has none within `limit` bytes.
  Result<std::string> read_string(uint64_t address, size_t limit = 4096) const;

  template <class T>
  Result<T> read_value(uint64_t address) const {
    T value{};
    TRY_VOID(read(address, &value, sizeof(value)));
    return value;
  }
  template <class T>
  Status write_value(uint64_t address, const T& value) const {
    return write(address, &value, sizeof(value));
  }
  int pid() const { return pid_; }

 private:
  ProcessMemory(int pid, UniqueFd file) : pid_(pid), file_(std::move(file)) {}
  int pid_ = 0;
  UniqueFd file_;
};

/// process_vm_readv / process_vm_writev of one range: all bytes or an error (EFAULT).
Status read_memory(int pid, uint64_t address, void* buffer, size_t bytes);
Status write_memory(int pid, uint64_t address, const void* buffer, size_t bytes);
/// Reads until the first unreadable page; the count may be 0.
Result<size_t> read_memory_some(int pid, uint64_t address, void* buffer, size_t bytes);

/// A range in another process.
struct RemoteRange {
  uint64_t address = 0;
  size_t bytes = 0;
};
/// Gathers many ranges into one local buffer (of at least their sum), 1024 ranges a call.
Status read_ranges(int pid, std::span<const RemoteRange> ranges, void* buffer);
/// The reverse: scatters `buffer` over the ranges.
Status write_ranges(int pid, std::span<const RemoteRange> ranges, const void* buffer);

}  // namespace mosix
