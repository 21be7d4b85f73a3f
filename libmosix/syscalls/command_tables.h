// Between table.cc and the files that hold rows per command (command_*.cc), and for nobody else: how such a
// table is made, sorted and checked while it is compiled.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "libmosix/arch/x86_64/syscall_numbers.h"
#include "libmosix/syscalls/kernel_sizes.h"
#include "libmosix/syscalls/row_check.h"
#include "libmosix/syscalls/row_words.h"

namespace mosix {

/// Rows for the values that one argument of one call can have.
struct CommandTable {
  int number = -1;
  int command_argument = -1;
  int level_argument = -1;  ///< socket options have a level as well
  std::span<const CommandRow> rows;
};

std::span<const CommandTable> ioctl_tables();    // command_ioctl.cc
std::span<const CommandTable> file_tables();     // command_file.cc: fcntl, epoll_ctl, fsconfig
std::span<const CommandTable> sockopt_tables();  // command_sockopt.cc
std::span<const CommandTable> process_tables();  // command_process.cc: prctl, arch_prctl, kcmp, get_mempolicy
std::span<const CommandTable> clock_tables();    // command_clock.cc: by clock
std::span<const CommandTable> ipc_tables();      // command_ipc.cc: shmctl, semctl, msgctl, keyctl

namespace row_check {
void a_command_stands_in_its_table_twice();
}  // namespace row_check

constexpr bool comes_before(const CommandRow& a, const CommandRow& b) {
  return a.level != b.level ? a.level < b.level : a.command < b.command;
}

/// Rows as they are written, by subject; as they are searched, by level and command. Checks every row.
template <size_t N>
consteval std::array<CommandRow, N> command_rows(const CommandRow (&written)[N]) {
  std::array<uint16_t, N> order{};
  for (size_t i = 0; i < N; ++i) order[i] = static_cast<uint16_t>(i);
  std::sort(order.begin(), order.end(),
            [&](uint16_t a, uint16_t b) { return comes_before(written[a], written[b]); });
  std::array<CommandRow, N> rows{};
  for (size_t i = 0; i < N; ++i) {
    rows[i] = written[order[i]];
    row_check::check_row(rows[i].row);
    if (rows[i].command_name.empty()) row_check::a_row_needs_a_number_and_a_name();
    if (i > 0 && !comes_before(rows[i - 1], rows[i])) row_check::a_command_stands_in_its_table_twice();
  }
  return rows;
}

namespace row_words {

/// A command by the header's name for it.
struct Command {
  uint32_t command = 0;
  std::string_view name;
  uint32_t level = 0;
};

constexpr CommandRow command_row(Command command, const SyscallRow& row) {
  return {.level = command.level, .command = command.command, .command_name = command.name, .row = row};
}

}  // namespace row_words
}  // namespace mosix

#define MOSIX_COMMAND(name) \
  ::mosix::row_words::Command { static_cast<uint32_t>(name), #name }
