// The agent's own calls on its channels pass by their mark (agent.h), and come first, for they are what direct calls
// cost. No program's call bears it: descriptors are ints, and compilers leave nothing above them.
//
// mmap, munmap, mprotect, mremap and madvise pass when their numbers alone prove that they are private,
// anonymous and clear of the agent's window. Written in BPF by hand: libseccomp can say "below or above" only
// as two rules for each argument, and 2.5.4 does not come to an end merging the dozen rules that result.
//
// A filter compares 32 bits at a time. Window and guard are multiples of 4 GiB, so that a range is judged by
// the high words of its address and length: shorter than 4 GiB, and beginning at least 4 GiB below the window
// or behind it. What lies nearer is notified; the supervisor can judge it exactly. So is every address below 4 GiB
// where home needs some of those for its rings.
#include "libmosix/syscalls/filter_memory.h"

#include <linux/audit.h>
#include <linux/mman.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "libmosix/agent/agent.h"

namespace mosix {
namespace {

constexpr uint32_t kAnyProtection = PROT_READ | PROT_WRITE | PROT_EXEC;
/// Flags that change neither whose memory it is nor where it may lie.
constexpr uint32_t kHarmlessMapFlags =
    MAP_NORESERVE | MAP_STACK | MAP_POPULATE | MAP_NONBLOCK | MAP_32BIT | MAP_DENYWRITE | MAP_EXECUTABLE;
/// Advice that tells no other process anything and is forgotten with the mapping; beside these, all from
/// MADV_NORMAL to MADV_DONTNEED.
constexpr uint32_t kHarmlessAdvice[] = {MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD, MADV_PAGEOUT};

constexpr int kChannelCalls[] = {SYS_sendto, SYS_recvfrom};
constexpr int kMemoryCalls[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise};

/// One call's conditions, in order. Each jumps to the end, to allow or to notify, or goes on.
class Conditions {
 public:
  explicit Conditions(uint64_t window_begin, uint64_t window_end, bool judge_low_addresses)
      : guard_high_(static_cast<uint32_t>(window_begin >> 32) - 1),
        end_high_(static_cast<uint32_t>(window_end >> 32)),
        judge_low_addresses_(judge_low_addresses) {}

  void load_high(int arg) { load(offsetof(seccomp_data, args) + 8 * static_cast<size_t>(arg) + 4); }
  void load_low(int arg) { load(offsetof(seccomp_data, args) + 8 * static_cast<size_t>(arg)); }

  void allow_if(uint16_t comparison, uint32_t value) { jump_if(comparison, value, kAllow, kNext); }
  void refuse_if(uint16_t comparison, uint32_t value) { jump_if(comparison, value, kNotify, kNext); }
  void need(uint16_t comparison, uint32_t value) { jump_if(comparison, value, kNext, kNotify); }
  /// Over the next `steps` instructions if the comparison fails.
  void skip_unless(uint16_t comparison, uint32_t value, uint8_t steps) {
    program_.push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | comparison | BPF_K), value, 0, steps));
  }

  void need_high_zero(int arg) {
    load_high(arg);
    need(BPF_JEQ, 0);
  }
  /// Of the argument's bits outside `ignored`, exactly those of `value` are set.
  void need_only(int arg, uint32_t ignored, uint32_t value) {
    need_high_zero(arg);
    load_low(arg);
    program_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~ignored));
    need(BPF_JEQ, value);
  }
  void need_clear_of_window(int address, int length) {
    need_high_zero(length);
    load_high(address);
    if (judge_low_addresses_) refuse_if(BPF_JEQ, 0);
    // Over the next step if behind the window.
    program_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, end_high_, 1, 0));
    jump_if(BPF_JGE, guard_high_, kNotify, kNext);
  }

  /// The whole, ending in allow.
  std::vector<sock_filter> finish() {
    const auto allow_at = program_.size(), notify_at = allow_at + 1;
    for (const Jump& jump : jumps_) {
      const auto target = jump.to == kAllow ? allow_at : notify_at;
      const auto distance = static_cast<uint8_t>(target - jump.at - 1);
      (jump.if_true ? program_[jump.at].jt : program_[jump.at].jf) = distance;
    }
    program_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    program_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
    return std::move(program_);
  }

 private:
  enum Target { kNext, kAllow, kNotify };
  struct Jump {
    size_t at;
    bool if_true;
    Target to;
  };

  void load(size_t offset) {
    program_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  }
  void jump_if(uint16_t comparison, uint32_t value, Target if_true, Target if_false) {
    if (if_true != kNext) jumps_.push_back({program_.size(), true, if_true});
    if (if_false != kNext) jumps_.push_back({program_.size(), false, if_false});
    const auto code = static_cast<uint16_t>(BPF_JMP | comparison | BPF_K);
    program_.push_back(BPF_JUMP(code, value, 0, 0));
  }

  const uint32_t guard_high_;
  const uint32_t end_high_;
  const bool judge_low_addresses_;
  std::vector<sock_filter> program_;
  std::vector<Jump> jumps_;
};

/// mmap(addr, length, prot, flags): where the kernel likes, of any length, or where a hint has room.
void add_mmap(Conditions& conditions) {
  conditions.need_only(2, kAnyProtection, 0);
  conditions.need_only(3, kHarmlessMapFlags, MAP_PRIVATE | MAP_ANONYMOUS);
  conditions.load_high(0);
  conditions.skip_unless(BPF_JEQ, 0, 2);
  conditions.load_low(0);
  conditions.allow_if(BPF_JEQ, 0);
  conditions.need_clear_of_window(0, 1);
}

/// mremap(old, old_length, new_length, flags, new): the new place counts where one is asked for.
void add_mremap(Conditions& conditions) {
  conditions.need_clear_of_window(0, 1);
  conditions.need_high_zero(2);
  conditions.need_high_zero(3);
  conditions.load_low(3);
  conditions.allow_if(BPF_JEQ, 0);
  conditions.allow_if(BPF_JEQ, MREMAP_MAYMOVE);
  conditions.need(BPF_JEQ, MREMAP_MAYMOVE | MREMAP_FIXED);
  conditions.need_clear_of_window(4, 2);
}

/// madvise(addr, length, advice).
void add_madvise(Conditions& conditions) {
  conditions.need_clear_of_window(0, 1);
  conditions.need_high_zero(2);
  conditions.load_low(2);
  for (uint32_t advice : kHarmlessAdvice) conditions.allow_if(BPF_JEQ, advice);
  conditions.refuse_if(BPF_JGT, MADV_DONTNEED);
}

std::vector<sock_filter> rules_of(int number, Conditions conditions) {
  switch (number) {
    case SYS_sendto:
    case SYS_recvfrom:
      conditions.load_high(0);
      conditions.need(BPF_JEQ, static_cast<uint32_t>(kDirectMark >> 32));
      break;
    case SYS_mmap:
      add_mmap(conditions);
      break;
    case SYS_mprotect:
      conditions.need_clear_of_window(0, 1);
      conditions.need_only(2, kAnyProtection, 0);
      break;
    case SYS_mremap:
      add_mremap(conditions);
      break;
    case SYS_madvise:
      add_madvise(conditions);
      break;
    default:  // munmap
      conditions.need_clear_of_window(0, 1);
  }
  return conditions.finish();
}

}  // namespace

bool is_memory_call(int number) {
  return std::find(std::begin(kMemoryCalls), std::end(kMemoryCalls), number) != std::end(kMemoryCalls);
}

std::vector<sock_filter> memory_rules(uint64_t window_begin, uint64_t window_end, bool judge_low_addresses) {
  std::vector<int> calls(std::begin(kChannelCalls), std::end(kChannelCalls));
  calls.insert(calls.end(), std::begin(kMemoryCalls), std::end(kMemoryCalls));
  std::vector<sock_filter> rules;
  std::vector<sock_filter> dispatch = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, static_cast<uint8_t>(calls.size() + 1)),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    // From here over the calls behind it and the jump to the end.
    const auto distance = static_cast<uint8_t>(calls.size() - i + rules.size());
    dispatch.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(calls[i]), distance, 0));
    const auto block = rules_of(calls[i], Conditions(window_begin, window_end, judge_low_addresses));
    rules.insert(rules.end(), block.begin(), block.end());
  }
  dispatch.push_back(BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(rules.size())));
  dispatch.insert(dispatch.end(), rules.begin(), rules.end());
  return dispatch;
}

}  // namespace mosix
