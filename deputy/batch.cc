#include "deputy/batch.h"

#include <algorithm>

#include "libmosix/agent/agent_image.h"

namespace mosix {

user_regs_struct agent_registers(const user_regs_struct& base, AgentPlace place, uint32_t entry, uint64_t rdi,
                                 uint64_t rsi) {
  user_regs_struct registers = base;
  registers.rip = place.window + entry;
  registers.rsp = place.address() + kSlotStackTop;
  registers.rdi = rdi;
  registers.rsi = rsi;
  registers.rax = 0;
  registers.eflags = 0x202;  // interrupts on, nothing else: no direction flag, no trap flag
  registers.orig_rax = ~0ull;
  return registers;
}

Result<user_regs_struct> run_agent(Tracee& tracee, AgentPlace place, uint32_t entry, uint64_t rdi,
                                   uint64_t rsi) {
  TRY(user_regs_struct base, tracee.registers());
  return tracee.run_to_trap(agent_registers(base, place, entry, rdi, rsi));
}

size_t Batch::add(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                  uint64_t a5) {
  calls_.push_back(BatchCall{number, {a0, a1, a2, a3, a4, a5}, 0});
  return calls_.size() - 1;
}

uint64_t Batch::place_room(size_t count) {
  uint64_t address = place_.address() + kSlotBuffer + kDataOffset + data_.size();
  data_.resize((data_.size() + count + 15) / 16 * 16);
  return address;
}

uint64_t Batch::place_data(const void* bytes, size_t count) {
  size_t at = data_.size();
  uint64_t address = place_room(count);
  memcpy(data_.data() + at, bytes, count);
  return address;
}

Status Batch::run(Tracee& tracee, const ProcessMemory& memory) {
  if (calls_.size() > kMaxCalls || data_.size() > kDataBytes)
    return fail(E2BIG, "batch of " + std::to_string(calls_.size()) + " calls");
  if (calls_.empty()) return {};
  uint64_t calls_at = place_.address() + kSlotBuffer;
  uint64_t data_at = calls_at + kDataOffset;
  size_t call_bytes = calls_.size() * sizeof(BatchCall);
  TRY_VOID(memory.write(calls_at, calls_.data(), call_bytes));
  if (!data_.empty()) TRY_VOID(memory.write(data_at, data_.data(), data_.size()));
  auto ran = run_agent(tracee, place_, kAgentImage.entry_batch, calls_at, calls_.size());
  if (!ran) return fail(std::move(ran.error()));
  TRY_VOID(memory.read(calls_at, calls_.data(), call_bytes));
  if (!data_.empty()) TRY_VOID(memory.read(data_at, data_.data(), data_.size()));
  return {};
}

int Batch::first_error() const {
  auto failed = std::find_if(calls_.begin(), calls_.end(),
                             [](const BatchCall& call) { return call.result < 0 && call.result > -4096; });
  return failed == calls_.end() ? 0 : static_cast<int>(-failed->result);
}

}  // namespace mosix
