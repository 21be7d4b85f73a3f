#include "remote/batch.h"

#include "libmosix/agent/agent_image.h"

namespace mosix {

size_t Batch::add(uint64_t number, std::array<uint64_t, 6> args, bool may_fail) {
  BatchCall call{};
  call.number = number;
  for (size_t i = 0; i < args.size(); ++i) call.args[i] = args[i];
  calls_.push_back(call);
  may_fail_.push_back(may_fail);
  return calls_.size() - 1;
}

uint64_t Batch::reserve(size_t bytes) {
  size_t offset = (data_.size() + 15) & ~size_t{15};
  data_.resize(offset + bytes);
  return buffer() + kDataOffset + offset;
}

uint64_t Batch::place(const void* data, size_t bytes) {
  uint64_t address = reserve(bytes);
  memcpy(data_.data() + (address - buffer() - kDataOffset), data, bytes);
  return address;
}

void Batch::clear() {
  calls_.clear();
  may_fail_.clear();
  data_.clear();
}

Status Batch::run(Tracee& tracee) {
  if (data_.size() > kSlotBufferBytes - kDataOffset) return fail(E2BIG, "batch data");
  if (!data_.empty()) TRY_VOID(write_memory(pid_, buffer() + kDataOffset, data_.data(), data_.size()));
  TRY(user_regs_struct original, tracee.registers());
  for (size_t first = 0; first < calls_.size(); first += kMaxBatchCalls) {
    size_t count = std::min<size_t>(kMaxBatchCalls, calls_.size() - first);
    TRY_VOID(write_memory(pid_, buffer(), &calls_[first], count * sizeof(BatchCall)));
    user_regs_struct registers = original;
    registers.rip = window_ + kAgentImage.entry_batch;
    registers.rdi = buffer();
    registers.rsi = count;
    registers.rsp = slot_address(window_, 0) + kSlotStackTop;
    auto ran = tracee.run_to_trap(registers);
    if (!ran) return fail(ran.error());
    TRY_VOID(read_memory(pid_, buffer(), &calls_[first], count * sizeof(BatchCall)));
  }
  TRY_VOID(tracee.set_registers(original));
  for (size_t i = 0; i < calls_.size(); ++i) {
    int64_t result = calls_[i].result;
    if (!may_fail_[i] && result < 0 && result > -4096)
      return fail(static_cast<int>(-result),
                  "system call " + std::to_string(calls_[i].number) + " in the remote");
  }
  return {};
}

}  // namespace mosix
