#include "libmosix/process/vdso.h"

#include <signal.h>

#include <algorithm>
#include <cstring>

namespace mosix {
namespace {

/// Its loops wait for the kernel's timekeeper, which writes for microseconds
constexpr int kMostSteps = 100'000;
constexpr uint8_t kSyscallInstruction[] = {0x0f, 0x05};
constexpr uint64_t kTrapOnly = ~(1ull << (SIGTRAP - 1));

// Of the kernel's struct rt_sigframe: the return address, then the ucontext with registers as in sigcontext.
constexpr uint64_t kFrameRsp = 168, kFrameRip = 176, kFrameCs = 192, kFrameBytes = 200;
constexpr uint16_t kUserCodeSegment = 0x33;
constexpr uint64_t kMostStackBytes = 16ull << 20;
constexpr size_t kMostStacks = 8;  ///< alternate and ordinary ones by turns

uint64_t word_at(const uint8_t* bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

Result<bool> at_syscall(const Tracee& tracee, uint64_t rip) {
  uint8_t code[sizeof kSyscallInstruction];
  TRY_VOID(read_memory(tracee.tid(), rip, code, sizeof code));
  return memcmp(code, kSyscallInstruction, sizeof code) == 0;
}

enum class AtSyscall { kStop, kMake };

Status step_out(Tracee& tracee, CodeRange code, AtSyscall at_call) {
  for (int steps = 0; steps < kMostSteps; ++steps) {
    TRY(user_regs_struct registers, tracee.registers());
    if (!code.contains(registers.rip)) return {};
    if (at_call == AtSyscall::kStop) {
      TRY(bool at_end, at_syscall(tracee, registers.rip));
      if (at_end) return {};
    }
    TRY_VOID(tracee.step());
    TRY(StopInfo stop, tracee.wait_stop());
    if (stop.gone()) return fail(ESRCH, "thread " + std::to_string(tracee.tid()) + " " + stop.text());
    if (stop.kind == StopKind::kSignal && stop.signal != SIGTRAP)
      return fail(EBUSY, "thread " + std::to_string(tracee.tid()) + " got " + stop.text() +
                             " in code that it had to leave");
  }
  return fail(EBUSY, "thread " + std::to_string(tracee.tid()) + " does not come out of its code");
}

}  // namespace

CodeRange vdso_code(const std::vector<MapEntry>& maps) {
  for (const MapEntry& map : maps)
    if (map.path == "[vdso]") return {map.start, map.end};
  return {};
}

namespace {
Status leave(Tracee& tracee, CodeRange code, AtSyscall at_call) {
  TRY(uint64_t mask, tracee.signal_mask());
  TRY_VOID(tracee.set_signal_mask(kTrapOnly));
  Status left = step_out(tracee, code, at_call);
  if (tracee.stopped()) TRY_VOID(tracee.set_signal_mask(mask));
  return left;
}
}  // namespace

Status leave_vdso(Tracee& tracee, CodeRange vdso) {
  TRY(user_regs_struct registers, tracee.registers());
  if (!vdso.contains(registers.rip) || static_cast<int64_t>(registers.orig_rax) >= 0) return {};
  return leave(tracee, vdso, AtSyscall::kStop);
}

Status leave_code(Tracee& tracee, CodeRange code) {
  TRY(user_regs_struct registers, tracee.registers());
  return code.contains(registers.rip) ? leave(tracee, code, AtSyscall::kMake) : Status();
}

Result<bool> returns_into_vdso(const Tracee& tracee, const ProcessMemory& memory, CodeRange vdso,
                               const std::vector<MapEntry>& maps, const std::vector<uint64_t>& restorers) {
  if (restorers.empty() || vdso.start == vdso.end) return false;
  TRY(user_regs_struct registers, tracee.registers());
  // In the restorer and in rt_sigreturn the frame's first word has been taken off the stack already.
  std::vector<uint64_t> tops{registers.rsp - sizeof(uint64_t)};
  std::vector<uint8_t> stack;
  for (size_t next = 0; next < tops.size() && next < kMostStacks; ++next) {
    uint64_t top = (tops[next] + 7) & ~uint64_t{7};
    auto map =
        std::find_if(maps.begin(), maps.end(), [top](const MapEntry& entry) { return entry.contains(top); });
    if (map == maps.end()) continue;
    stack.resize(std::min(map->end - top, kMostStackBytes));
    TRY(size_t bytes, memory.read_some(top, stack.data(), stack.size()));
    for (size_t at = 0; at + kFrameBytes <= bytes; at += 8) {
      const uint8_t* frame = stack.data() + at;
      if (std::find(restorers.begin(), restorers.end(), word_at(frame)) == restorers.end()) continue;
      if (static_cast<uint16_t>(word_at(frame + kFrameCs)) != kUserCodeSegment) continue;
      if (vdso.contains(word_at(frame + kFrameRip))) return true;
      // A handler on a stack of its own: what it has interrupted may be a handler too.
      uint64_t below = word_at(frame + kFrameRsp);
      if (!map->contains(below)) tops.push_back(below);
    }
  }
  return false;
}

}  // namespace mosix
