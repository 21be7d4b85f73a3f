// A run of system calls in a stopped guest thread, executed by the agent in one go: written into slot 0's
// buffer, carried out, and read back. Used by the threads that rebuild or capture a guest.
#pragma once

#include <string>
#include <vector>

#include "libmosix/agent/agent.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/tracee.h"

namespace mosix {

class Batch {
 public:
  Batch(uint64_t window, int outer_pid) : window_(window), pid_(outer_pid) {}

  /// `may_fail`: an error of this call is no error of the batch. Index of the call in results().
  size_t add(uint64_t number, std::array<uint64_t, 6> args, bool may_fail = false);
  /// Bytes for a call to read or write; the address that they will have in the guest.
  uint64_t place(const void* data, size_t bytes);
  uint64_t reserve(size_t bytes);

  /// Runs everything in `tracee`, whose registers are put back. Error: the first call that failed and may not.
  Status run(Tracee& tracee);
  int64_t result(size_t index) const { return calls_[index].result; }
  /// What the guest's memory holds now at a reserved place.
  Status fetch(uint64_t address, void* data, size_t bytes) const {
    return read_memory(pid_, address, data, bytes);
  }
  void clear();

 private:
  uint64_t buffer() const { return slot_address(window_, 0) + kSlotBuffer; }
  uint64_t window_;
  int pid_;
  std::vector<BatchCall> calls_;
  std::vector<bool> may_fail_;
  std::vector<uint8_t> data_;
  static constexpr uint64_t kDataOffset = kSlotBufferBytes / 2;
};

}  // namespace mosix
