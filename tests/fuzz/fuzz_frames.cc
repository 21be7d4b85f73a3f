// The forwarder between rubbish and rubbish: any call of the table with any arguments over any memory makes a
// frame that a deputy can take, or comes home; and whatever the call then leaves in scratch, its reply is
// read and delivered. Input: row, command, result, six arguments, noise; the rest is the guest's memory.
#include <algorithm>
#include <cstring>

#include "libmosix/syscalls/call_plan.h"
#include "libmosix/syscalls/decode.h"
#include "tests/fakes/guest_memories.h"
#include "tests/fakes/local_deputy.h"
#include "tests/fuzz/fuzz_target.h"

namespace mosix::fuzz {
namespace {

constexpr uint64_t kBase = 0x10000;
constexpr size_t kArgumentBytes = 8;

/// Rows and command rows alike.
const SyscallRow& row_for(uint64_t number, uint64_t command) {
  const auto table = syscall_table();
  const SyscallRow& row = table[number % table.size()];
  const auto commands = command_table(row.number);
  return commands.empty() || command % 4 == 0 ? row : commands[command / 4 % commands.size()].row;
}

/// As if the kernel had written anything anywhere.
void scribble(uint8_t* scratch, size_t bytes, uint64_t noise) {
  bytes = std::min<size_t>(bytes, 64 << 10);
  for (size_t at = noise % 64; at + 8 <= bytes; at += 8 + (noise >> 8 & 0xff))
    memcpy(scratch + at, &noise, 8);
}

/// A call after which the rest of the program would be the deputy's: how large it may be is what matters
/// here.
void carry(const CallPlan& plan, int64_t result, uint64_t noise, GuestMemory& memory) {
  const auto bytes = plan.frame_body();
  fakes::CallFrame frame;
  const std::string refusal = fakes::take_apart(bytes, frame);
  must(refusal.empty(), refusal.c_str());
  must(frame.body.in_bytes == plan.scratch.size(), "the in part is scratch's front");
  must(plan.destinations.size() == plan.outs.size(), "each region has a destination");
  fakes::Scratch scratch(frame);
  scribble(scratch.data(), frame.body.scratch_bytes, noise);
  const auto reply_body = fakes::reply_bytes(frame, scratch.data(), result);
  const auto reply = parse_reply(plan, reply_body.data(), reply_body.size());
  must(reply.has_value(), "a deputy's own reply is read");
  must(reply->result == result, "the result arrives");
  const Status delivered = deliver_outs(plan, *reply, memory);
  must(delivered || delivered.error().code == EFAULT, "delivered, or the guest's pointer is bad");
}

}  // namespace

std::vector<Input> seeds() {
  std::vector<Input> inputs;
  for (size_t number = 0; number < syscall_table().size(); ++number) {
    for (const uint64_t command : {0u, 1u, 5u, 9u}) {
      Input input;
      put(input, number, 2);
      put(input, command, 2);
      put(input, number % 5, kArgumentBytes);
      put(input, 3, kArgumentBytes);
      for (uint64_t i = 1; i < 6; ++i)
        put(input, i % 2 == number % 2 ? kBase + 64 * i : 2 + i, kArgumentBytes);
      put(input, 0, kArgumentBytes);
      for (uint64_t i = 0; i < 64; ++i) put(input, i % 2 == 0 ? kBase + 8 * i : i, 8);
      inputs.push_back(std::move(input));
    }
  }
  return inputs;
}

}  // namespace mosix::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mosix;
  using namespace mosix::fuzz;
  Source source(data, size);
  const uint64_t number = source.number(2), command = source.number(2);
  const SyscallRow& row = row_for(number, command);
  const auto result = static_cast<int64_t>(source.number(kArgumentBytes));
  std::array<uint64_t, 6> args;
  for (uint64_t& arg : args) arg = source.number(kArgumentBytes);
  const uint64_t noise = source.number(kArgumentBytes);
  fakes::RangeMemory memory(kBase, source.rest());

  const CallText text(row, args, memory);
  const auto plan = plan_call(row, args, memory);
  if (plan)
    carry(*plan, result, noise, memory);
  else
    must(plan.error().code == kCannotCarry, "a call is carried or comes home");
  must(!text.finish(result, memory).empty(), "every call can be told");
  return 0;
}
