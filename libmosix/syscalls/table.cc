// The one table of system calls, put together from rows by subject (rows_*.inc) and, for multiplexed calls,
// rows by command (command_*.cc). All of it is constant data; what is wrong with a row is found while this
// file is compiled: a number that two rows have or that none has, a pointer without direction and size, a
// refusal without errno, a process brought home without a reason (row_check.h).
//
// Linux 6.18 has the calls 0 to 336 and 424 to 469. The numbers between were skipped on x86-64 so that new
// calls have the same number on every processor; they get rows by themselves.

#include "libmosix/syscalls/table.h"

#include <cerrno>

#include "libmosix/syscalls/command_tables.h"

namespace mosix {
namespace row_check {
void two_rows_have_the_same_number();
void a_number_has_no_row();
}  // namespace row_check

namespace {

using namespace row_words;

#include "libmosix/syscalls/rows_descriptors.inc"
#include "libmosix/syscalls/rows_files.inc"
#include "libmosix/syscalls/rows_ipc.inc"
#include "libmosix/syscalls/rows_memory.inc"
#include "libmosix/syscalls/rows_processes.inc"
#include "libmosix/syscalls/rows_signals_time.inc"
#include "libmosix/syscalls/rows_sockets.inc"
#include "libmosix/syscalls/rows_system.inc"

// ---- the numbers that nobody has ------------------------------------------------------------------------

constexpr int kUnusedCount = kLastUnusedSyscall - kFirstUnusedSyscall + 1;
using UnusedName = std::array<char, 10>;  // "unused_NNN"

consteval std::array<UnusedName, kUnusedCount> unused_names() {
  std::array<UnusedName, kUnusedCount> names{};
  for (int i = 0; i < kUnusedCount; ++i) {
    const int number = kFirstUnusedSyscall + i;
    names[i] = {'u', 'n', 'u', 's', 'e', 'd', '_'};
    names[i][7] = static_cast<char>('0' + number / 100);
    names[i][8] = static_cast<char>('0' + number / 10 % 10);
    names[i][9] = static_cast<char>('0' + number % 10);
  }
  return names;
}

constexpr auto kUnusedNames = unused_names();

constexpr std::array<Arg, 6> kSixNumbers = {hex("arg1"), hex("arg2"), hex("arg3"),
                                            hex("arg4"), hex("arg5"), hex("arg6")};

constexpr SyscallRow without_call(int number, std::string_view name, std::string_view note) {
  SyscallRow row = call(number, name).bring_home(note, "-");
  row.args = kSixNumbers;
  return row;
}

constexpr SyscallRow kUnknown = without_call(-1, "unknown", "a system call that the table does not know");

// ---- the table ------------------------------------------------------------------------------------------

using Table = std::array<SyscallRow, kLastSyscall + 1>;

template <size_t N>
constexpr void place(Table& table, const SyscallRow (&rows)[N]) {
  for (const SyscallRow& row : rows) {
    row_check::check_row(row);
    if (table[row.number].number != -1) row_check::two_rows_have_the_same_number();
    table[row.number] = row;
  }
}

consteval Table make_table() {
  Table table{};
  place(table, kDescriptorRows);
  place(table, kFileRows);
  place(table, kIpcRows);
  place(table, kMemoryRows);
  place(table, kProcessRows);
  place(table, kSignalTimeRows);
  place(table, kSocketRows);
  place(table, kSystemRows);
  for (int number = kFirstUnusedSyscall; number <= kLastUnusedSyscall; ++number) {
    if (table[number].number != -1) row_check::two_rows_have_the_same_number();
    const UnusedName& name = kUnusedNames[number - kFirstUnusedSyscall];
    table[number] = without_call(number, {name.data(), name.size()}, "a number without a call in Linux 6.18");
  }
  for (const SyscallRow& row : table) {
    if (row.number < 0) row_check::a_number_has_no_row();
  }
  return table;
}

constexpr Table kTable = make_table();

static_assert(kTable[0].name == "read" && kTable[kLastSyscall].name == "file_setattr");

// ---- the calls with rows per command --------------------------------------------------------------------

const CommandTable* find_table(std::span<const CommandTable> tables, int number) {
  for (const CommandTable& table : tables) {
    if (table.number == number) return &table;
  }
  return nullptr;
}

/// Asked for every call of every guest, so that the switch first tells the many that have no commands.
const CommandTable* commands_of(uint64_t number) {
  switch (number) {
    case __NR_ioctl:
      return find_table(ioctl_tables(), __NR_ioctl);
    case __NR_fcntl:
    case __NR_epoll_ctl:
    case __NR_fsconfig:
      return find_table(file_tables(), static_cast<int>(number));
    case __NR_getsockopt:
    case __NR_setsockopt:
      return find_table(sockopt_tables(), static_cast<int>(number));
    case __NR_prctl:
    case __NR_arch_prctl:
    case __NR_kcmp:
    case __NR_get_mempolicy:
      return find_table(process_tables(), static_cast<int>(number));
    case __NR_clock_gettime:
    case __NR_clock_nanosleep:
    case __NR_timer_create:
      return find_table(clock_tables(), static_cast<int>(number));
    case __NR_shmctl:
    case __NR_semctl:
    case __NR_msgctl:
    case __NR_keyctl:
      return find_table(ipc_tables(), static_cast<int>(number));
    default:
      return nullptr;
  }
}

/// Commands are 32 bits wide, whatever else is in the register.
uint32_t command_in(const std::array<uint64_t, 6>& args, int argument) {
  return argument < 0 ? 0 : static_cast<uint32_t>(args[argument]);
}

}  // namespace

std::span<const SyscallRow> syscall_table() { return kTable; }

const SyscallRow& syscall_row(uint64_t number) { return number < kTable.size() ? kTable[number] : kUnknown; }

const SyscallRow& syscall_row(uint64_t number, const std::array<uint64_t, 6>& args) {
  const CommandTable* commands = commands_of(number);
  if (commands == nullptr) return syscall_row(number);
  const CommandRow wanted{.level = command_in(args, commands->level_argument),
                          .command = command_in(args, commands->command_argument)};
  const auto found = std::lower_bound(commands->rows.begin(), commands->rows.end(), wanted, comes_before);
  if (found == commands->rows.end() || comes_before(wanted, *found)) return syscall_row(number);
  return found->row;
}

std::span<const CommandRow> command_table(int number) {
  const CommandTable* commands = commands_of(static_cast<uint64_t>(number));
  return commands == nullptr ? std::span<const CommandRow>{} : commands->rows;
}

int command_argument(int number) {
  const CommandTable* commands = commands_of(static_cast<uint64_t>(number));
  return commands == nullptr ? -1 : commands->command_argument;
}

}  // namespace mosix
