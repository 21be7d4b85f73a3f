// What every row must fulfil, looked at while the table is compiled. A row that does not fulfil it calls a
// function that is no constant expression, so that the compiler's complaint contains the reason.
#pragma once

#include "libmosix/syscalls/table.h"

namespace mosix::row_check {

void a_row_needs_a_number_and_a_name();
void arguments_follow_one_another_without_gaps();
void an_argument_needs_a_name();
void a_pointer_needs_a_direction();
void a_buffer_needs_a_size();
void only_pointers_have_a_direction();
void a_size_names_an_argument_that_is_there();
void a_length_is_read_through_a_pointer();
void a_count_inside_is_read_from_the_head();
void what_is_filled_up_to_a_result_is_not_out_on_error();
void out_on_error_must_go_there_first();
void a_home_call_has_no_pointer_that_nobody_follows();
void a_call_that_runs_here_has_local_pointers_only();
void split_and_handler_belong_together();
void a_refusal_needs_errno_and_note();
void bringing_home_needs_a_reason();
void a_row_says_what_it_returns();
void timed_calls_block();

constexpr bool is_pointer(ArgKind kind) {
  return kind == ArgKind::kString || kind == ArgKind::kBuffer || kind == ArgKind::kStringArray ||
         kind == ArgKind::kIovec || kind == ArgKind::kMsghdr || kind == ArgKind::kMmsghdr;
}

constexpr bool size_names_argument(SizeKind kind) {
  return kind != SizeKind::kNone && kind != SizeKind::kConst && kind != SizeKind::kCountInside;
}

constexpr void check_size(const SyscallRow& row, const Arg& arg) {
  const ArgSize& size = arg.size;
  const bool is_bounded_string = arg.kind == ArgKind::kString && size.kind == SizeKind::kConst;
  if (is_bounded_string) return;
  const bool wants_size =
      arg.kind == ArgKind::kBuffer || arg.kind == ArgKind::kIovec || arg.kind == ArgKind::kMmsghdr;
  if (wants_size != (size.kind != SizeKind::kNone)) a_buffer_needs_a_size();
  if (!wants_size) return;
  if (size.bytes == 0) a_buffer_needs_a_size();
  if (size.kind == SizeKind::kCountInside && (arg.direction == Direction::kOut || size.arg + 4u > size.head))
    a_count_inside_is_read_from_the_head();
  if (!size_names_argument(size.kind)) return;
  if (size.arg >= row.args.size()) a_size_names_an_argument_that_is_there();
  const Arg& named = row.args[size.arg];
  if (named.kind == ArgKind::kNone) a_size_names_an_argument_that_is_there();
  if (size.kind == SizeKind::kLengthAt) {
    if (named.kind != ArgKind::kBuffer || named.size.kind != SizeKind::kConst || named.size.bytes < 4 ||
        named.direction != Direction::kInOut) {
      a_length_is_read_through_a_pointer();
    }
  } else if (named.kind != ArgKind::kValue) {
    a_size_names_an_argument_that_is_there();
  }
}

constexpr void check_arg(const SyscallRow& row, const Arg& arg) {
  if (arg.name.empty()) an_argument_needs_a_name();
  if (!is_pointer(arg.kind)) {
    if (arg.direction != Direction::kNone || arg.out_on_error || arg.size.kind != SizeKind::kNone) {
      only_pointers_have_a_direction();
    }
    if (arg.kind == ArgKind::kLocalPointer && (row.where == Where::kHome)) {
      a_home_call_has_no_pointer_that_nobody_follows();
    }
    return;
  }
  if (arg.direction == Direction::kNone) a_pointer_needs_a_direction();
  check_size(row, arg);
  if (arg.out_on_error && arg.direction != Direction::kInOut) out_on_error_must_go_there_first();
  if (arg.out_on_error && arg.size.kind == SizeKind::kArgResult) {
    what_is_filled_up_to_a_result_is_not_out_on_error();
  }
  if (row.where == Where::kHere) a_call_that_runs_here_has_local_pointers_only();
}

constexpr void check_args(const SyscallRow& row) {
  bool ended = false;
  for (const Arg& arg : row.args) {
    if (arg.kind == ArgKind::kNone) {
      ended = true;
      continue;
    }
    if (ended) arguments_follow_one_another_without_gaps();
    check_arg(row, arg);
  }
}

constexpr void check_row(const SyscallRow& row) {
  if (row.number < 0 || row.name.empty()) a_row_needs_a_number_and_a_name();
  check_args(row);
  if ((row.where == Where::kSplit) != (row.split != Split::kNone)) split_and_handler_belong_together();
  if ((row.where == Where::kRefuse) != (row.refusal > 0)) a_refusal_needs_errno_and_note();
  if (row.where == Where::kRefuse && row.note.empty()) a_refusal_needs_errno_and_note();
  if (row.where == Where::kBringHome && row.note.empty()) bringing_home_needs_a_reason();
  if (row.returns.empty()) a_row_says_what_it_returns();
  if ((row.effects & kTimed) != 0 && (row.effects & kMayBlock) == 0) timed_calls_block();
}

}  // namespace mosix::row_check
