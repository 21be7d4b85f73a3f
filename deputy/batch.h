// Several system calls in a stopped thread that carries the agent: one ptrace stop for all of them instead
// of two for each. Home side; the thread that traces the process.
//
// The calls and what they point to are written into the receive buffer of a slot, which is free as long as
// its deputy does not run: a receive that its ring still has armed writes only when that very thread enters
// the ring (DEFER_TASKRUN), and batches never do.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "libmosix/agent/agent.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/tracee.h"

namespace mosix {

/// Where code of the agent is to run: its window and the slot whose stack and buffer it uses.
struct AgentPlace {
  uint64_t window = 0;
  int slot = 0;
  uint64_t address() const { return slot_address(window, slot); }
};

/// Runs the agent in `tracee` from `entry` (an offset of kAgentImage) until it traps. The registers stay as
/// the agent left them; whoever lets the thread go on sets others first.
Result<user_regs_struct> run_agent(Tracee& tracee, AgentPlace place, uint32_t entry, uint64_t rdi,
                                   uint64_t rsi);

/// Registers for a thread that starts in the agent at `entry`: own stack, flags clear, in no system call.
user_regs_struct agent_registers(const user_regs_struct& base, AgentPlace place, uint32_t entry, uint64_t rdi,
                                 uint64_t rsi);

class Batch {
 public:
  explicit Batch(AgentPlace place) : place_(place) {}

  static constexpr size_t kMaxCalls = 512;
  static constexpr uint64_t kDataOffset = kMaxCalls * sizeof(BatchCall);
  static constexpr uint64_t kDataBytes = kSlotBufferBytes - kDataOffset;

  /// The call's index, for result(). At most kMaxCalls.
  size_t add(uint64_t number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0, uint64_t a3 = 0,
             uint64_t a4 = 0, uint64_t a5 = 0);
  /// Bytes that a call points to, in or out: their address in the process. At most kDataBytes in all.
  uint64_t place_data(const void* bytes, size_t count);
  uint64_t place_room(size_t count);
  bool empty() const { return calls_.empty(); }
  size_t size() const { return calls_.size(); }

  /// Executes all in order; single calls may fail (see result). After it the data is what the calls left.
  Status run(Tracee& tracee, const ProcessMemory& memory);
  int64_t result(size_t index) const { return calls_[index].result; }
  /// 0 or the first error among the results, as errno.
  int first_error() const;

  template <class T>
  T data_at(uint64_t address) const {
    T value{};
    memcpy(&value, data_.data() + (address - place_.address() - kSlotBuffer - kDataOffset), sizeof value);
    return value;
  }

 private:
  AgentPlace place_;
  std::vector<BatchCall> calls_;
  std::vector<uint8_t> data_;
};

}  // namespace mosix
