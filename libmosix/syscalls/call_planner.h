// The planner's parts, private to call_plan*.cc: one function for each kind of argument, over one context.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "libmosix/syscalls/scratch_layout.h"

namespace mosix {

inline constexpr uint64_t kMaxIovecs = 1024;  ///< UIO_MAXIOV, also the most messages of one sendmmsg
inline constexpr uint64_t kIovecBytes = 16;

struct GuestIovec {
  uint64_t base = 0;
  uint64_t bytes = 0;
};

class CallPlanner {
 public:
  CallPlanner(const SyscallRow& row, const std::array<uint64_t, 6>& args, GuestMemory& memory)
      : row_(row), number_(row.number), args_(args), memory_(memory) {}

  Result<CallPlan> plan();

 private:
  // call_plan.cc: single pointers
  Status plan_argument(size_t index);
  Status plan_string(size_t index);
  Status plan_buffer(size_t index);
  Status plan_length_prefixed(size_t index);
  Status plan_fd_set(size_t index);
  void add_buffer_regions(size_t index, Room room, uint64_t bytes);
  Status split_at_fault(size_t index, Room room, uint64_t bytes);
  Result<uint64_t> buffer_bytes(size_t index);

  // call_plan_nested.cc: structures that hold pointers
  using NestedPlan = Status (CallPlanner::*)(size_t index);
  static NestedPlan nested_plan(std::string_view decode);
  Status plan_sigset_argpack(size_t index);
  Status plan_ifconf(size_t index);
  Status plan_sock_fprog(size_t index);

  // call_plan_vectors.cc: argument lists and iovecs
  Status plan_string_array(size_t index);
  Status plan_iovec(size_t index);
  Result<std::vector<GuestIovec>> take_iovecs(uint64_t address, uint64_t count);
  Result<uint64_t> gather(uint32_t array_at, uint32_t capacity, const std::vector<GuestIovec>& iovecs,
                          bool may_cut);
  Result<uint64_t> scatter(uint32_t array_at, const std::vector<GuestIovec>& iovecs, bool may_cut);

  // call_plan_messages.cc
  Status plan_message(size_t index);
  Status plan_messages(size_t index);
  Status plan_one_of_messages(size_t index, uint32_t header_at, int64_t position);
  Status send_message(uint32_t header_at, bool may_cut);
  void receive_behind(uint32_t pointer_at, uint64_t bytes, OutRule rule, uint32_t length_at,
                      int64_t result_above);
  Status receive_names(uint32_t header_at, int64_t result_above);
  Status receive_scattered(uint32_t header_at);
  Status receive_pieces(uint32_t header_at, int64_t result_above);

  void point_to_bytes(uint32_t word_at, uint64_t address, uint64_t bytes);

  uint64_t read_word(uint32_t at) const;
  bool may_be_partial() const { return (row_.effects & kMayBePartial) != 0; }
  /// Another value than the program's, also for arguments that are planned later.
  void change_argument(size_t index, uint64_t value) {
    args_[index] = value;
    layout_.set_argument(index, value);
  }
  /// The pointer goes home as one that faults there.
  void make_bad(size_t index) { layout_.set_argument(index, kBadPointer); }
  Status make_bad_word(uint32_t at) { return layout_.set_word(at, bad_pointer_for(read_word(at))), Status{}; }

  const SyscallRow& row_;
  int number_;
  std::array<uint64_t, 6> args_;  ///< the program's, or what a cut has made of them
  GuestMemory& memory_;
  ScratchLayout layout_;
  std::array<std::optional<Room>, 6> rooms_{};  ///< of each argument that has one
};

/// kCannotCarry, with the call's name.
inline tl::unexpected<Error> cannot_carry(const SyscallRow& row, std::string_view why) {
  return fail(kCannotCarry, std::string(row.name) + ": " + std::string(why));
}

}  // namespace mosix
