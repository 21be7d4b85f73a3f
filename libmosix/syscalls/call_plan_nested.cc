// Structures that hold a pointer. A row says so by the `decode` name of its argument; all
// else about the argument is as the row has it. Each is short, because the kernel has few of them among the
// calls that are forwarded: a structure with pointers that is not here must not be in a kHome row.
#include <array>
#include <utility>

#include "libmosix/syscalls/call_planner.h"

namespace mosix {
namespace {

constexpr uint32_t kBpfInstructionBytes = 8;

}  // namespace

CallPlanner::NestedPlan CallPlanner::nested_plan(std::string_view decode) {
  static constexpr std::pair<std::string_view, NestedPlan> kPlans[] = {
      {"sigset_argpack", &CallPlanner::plan_sigset_argpack},
      {"ifconf", &CallPlanner::plan_ifconf},
      {"sock_fprog", &CallPlanner::plan_sock_fprog},
  };
  for (const auto& [name, plan] : kPlans)
    if (name == decode) return plan;
  return nullptr;
}

/// The word at `word_at` shall point to a copy of the guest's bytes.
void CallPlanner::point_to_bytes(uint32_t word_at, uint64_t address, uint64_t bytes) {
  if (address == 0) return layout_.set_word(word_at, 0);
  if (!is_hopeless(address)) {
    const Room room = layout_.add_in(bytes);
    if (memory_.read(address, layout_.bytes_of(room), bytes)) return layout_.point_word(word_at, room);
  }
  layout_.set_word(word_at, bad_pointer_for(address));
}

/// pselect6's sixth argument: {const sigset_t* set; size_t size}.
Status CallPlanner::plan_sigset_argpack(size_t index) {
  const Room pack = layout_.add_in(16);
  if (!memory_.read(args_[index], layout_.bytes_of(pack), 16)) return make_bad(index), Status{};
  const uint32_t at = layout_.offset_of(pack);
  point_to_bytes(at, read_word(at), 8);
  layout_.point_argument(index, pack);
  return {};
}

/// SIOCGIFCONF: {int length; char* buffer}; with a null buffer only the length is answered.
Status CallPlanner::plan_ifconf(size_t index) {
  const Room head = layout_.add_in(16);
  if (!memory_.read(args_[index], layout_.bytes_of(head), 16)) return make_bad(index), Status{};
  layout_.point_argument(index, head);
  const uint32_t at = layout_.offset_of(head);
  const auto capacity = static_cast<int32_t>(read_word(at));
  const uint64_t buffer = read_word(at + 8);
  if (capacity > 0 && static_cast<uint64_t>(capacity) > layout_.data_left())
    return cannot_carry(row_, "more bytes than one frame carries");
  if (buffer != 0 && (is_hopeless(buffer) || capacity < 0)) {
    layout_.set_word(at + 8, bad_pointer_for(buffer));
  } else if (buffer != 0) {
    const Room room = layout_.add_out(static_cast<uint64_t>(capacity));
    layout_.point_word(at + 8, room);
    ScratchLayout::Out list{
        .room = room, .bytes = static_cast<uint32_t>(capacity), .rule = OutRule::kLength32};
    list.param = at;
    list.destination.address = buffer;
    layout_.add_region(list);
  }
  ScratchLayout::Out length{.room = head, .bytes = sizeof(int32_t)};
  length.destination.address = args_[index];
  layout_.add_region(length);
  return {};
}

/// SO_ATTACH_FILTER: {u16 count; sock_filter* program}.
Status CallPlanner::plan_sock_fprog(size_t index) {
  const Room head = layout_.add_in(16);
  if (!memory_.read(args_[index], layout_.bytes_of(head), 16)) return make_bad(index), Status{};
  layout_.point_argument(index, head);
  const uint32_t at = layout_.offset_of(head);
  const auto count = static_cast<uint16_t>(read_word(at));
  point_to_bytes(at + 8, read_word(at + 8), uint64_t{count} * kBpfInstructionBytes);
  return {};
}

}  // namespace mosix
