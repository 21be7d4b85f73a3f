// The seam between the call forwarder and a stopped guest's memory. The supervisor's implementation checks
// that the notification is still valid; tests use a buffer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libmosix/common/result.h"

namespace mosix {

class GuestMemory {
 public:
  virtual ~GuestMemory() = default;
  /// All bytes or EFAULT.
  virtual Status read(uint64_t address, void* data, size_t bytes) = 0;
  virtual Status write(uint64_t address, const void* data, size_t bytes) = 0;
  /// As many bytes as can be read from `address` on, at most `bytes`; 0 if none.
  virtual size_t read_some(uint64_t address, void* data, size_t bytes) = 0;
};

}  // namespace mosix
