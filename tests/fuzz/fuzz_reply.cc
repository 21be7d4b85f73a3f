// REPLY frames from a home that has gone mad, against plans that are right. Input: which plan, then the body.
// Promises: an answer or EBADMSG; no region longer than asked for; nothing written outside the destinations.
#include <sys/syscall.h>

#include "libmosix/syscalls/call_plan.h"
#include "tests/fakes/guest_memories.h"
#include "tests/fakes/local_deputy.h"
#include "tests/fuzz/fuzz_target.h"

namespace mosix::fuzz {
namespace {

constexpr uint64_t kBase = 0x10000;
constexpr size_t kMemoryBytes = 4096;

struct Case {
  int number;
  std::array<uint64_t, 6> args;
};

constexpr uint64_t at(uint64_t offset) { return kBase + offset; }

constexpr Case kCases[] = {
    {SYS_getppid, {}},
    {SYS_read, {0, at(0), 1000}},
    {SYS_readv, {0, at(1024), 3}},
    {SYS_recvmsg, {0, at(2048), 0}},
    {SYS_recvmmsg, {0, at(2048), 2, 0, 0}},
    {SYS_recvfrom, {0, at(0), 100, 0, at(512), at(700)}},
    {SYS_poll, {at(0), 40, 0}},
    {SYS_select, {300, at(0), at(64), 0, at(128)}},
    {SYS_stat, {at(3000), at(0)}},
    {SYS_nanosleep, {at(0), at(16)}},
    {SYS_wait4, {0, at(0), 0, at(16)}},
};

/// Memory in which every case finds its structures.
fakes::RangeMemory guest() {
  Input bytes(kMemoryBytes);
  const auto word = [&](size_t offset, uint64_t value) { memcpy(&bytes[offset], &value, sizeof(value)); };
  const uint32_t room = 64;
  memcpy(&bytes[700], &room, sizeof(room));
  for (size_t i = 0; i < 3; ++i) {
    word(1024 + i * 16, at(1200 + i * 100));
    word(1032 + i * 16, 90);
  }
  for (size_t i = 0; i < 2; ++i) {
    const size_t header = 2048 + i * 64;
    word(header, at(3200 + i * 128));
    word(header + 8, 64);
    word(header + 16, at(1024));
    word(header + 24, 3);
    word(header + 32, at(3500 + i * 128));
    word(header + 40, 100);
  }
  return fakes::RangeMemory(kBase, bytes);
}

Result<CallPlan> plan_of(const Case& one, GuestMemory& memory) {
  return plan_call(syscall_row(static_cast<uint64_t>(one.number)), one.args, memory);
}

}  // namespace

std::vector<Input> seeds() {
  std::vector<Input> inputs;
  for (size_t i = 0; i < std::size(kCases); ++i) {
    auto memory = guest();
    const auto plan = plan_of(kCases[i], memory);
    must(plan.has_value(), "each case has a plan");
    fakes::CallFrame frame;
    must(fakes::take_apart(plan->frame_body(), frame).empty(), "each plan is a frame");
    const fakes::Scratch scratch(frame);
    for (const int64_t result : {0, 1, 2, 77, -4}) {
      Input input{static_cast<uint8_t>(i)};
      const auto body =
          fakes::reply_bytes(frame, scratch.data(), result, std::vector<Siginfo>(result == 1 ? 2 : 0));
      input.insert(input.end(), body.begin(), body.end());
      inputs.push_back(std::move(input));
    }
  }
  return inputs;
}

}  // namespace mosix::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mosix;
  using namespace mosix::fuzz;
  if (size == 0) return 0;
  auto memory = guest();
  const auto plan = plan_of(kCases[data[0] % std::size(kCases)], memory);
  const auto reply = parse_reply(*plan, data + 1, size - 1);
  if (!reply) {
    must(reply.error().code == EBADMSG, "what cannot be read is garbled");
    return 0;
  }
  must(reply->outs.empty() || reply->outs.size() == plan->outs.size(), "all regions or none");
  uint64_t most = 0;
  for (size_t i = 0; i < reply->outs.size(); ++i) {
    must(reply->outs[i].size() <= plan->outs[i].max_bytes, "no region longer than asked for");
    most += reply->outs[i].size();
  }
  const Input before = memory.content();
  must(deliver_outs(*plan, *reply, memory).has_value(), "what was planned can be delivered");
  uint64_t changed = 0;
  for (size_t i = 0; i < before.size(); ++i) changed += before[i] != memory.content()[i];
  must(changed <= most, "no more is written than came");
  return 0;
}
