// Rows per clock: clock_gettime, clock_nanosleep and timer_create. Constant data; table.cc looks it up.
//
// Clocks that count real or monotonic time are the same on both nodes, so they are read away and slept by and
// armed at home. Clocks that count CPU time count where the processor is: a deputy uses none, and a sleep or
// timer by its CPU clock would never end. Numbers that are no clock of this list name the CPU clock of
// another process, or a device: home judges them.

#include <time.h>

#include "libmosix/syscalls/command_tables.h"

namespace mosix {
namespace {

using namespace row_words;

constexpr CommandRow reads_here(Command clock) {
  return command_row(clock,
                     MOSIX_CALL(clock_gettime).with(value("clockid", "clock_id"), local("tp")).here("0"));
}

constexpr CommandRow reads_cpu_time(Command clock) {
  return command_row(clock,
                     MOSIX_CALL(clock_gettime)
                         .with(value("clockid", "clock_id"), out("tp", bytes(kTimespecBytes), "timespec"))
                         .split(Split::kTimes, "0", 0, "what was used on other nodes is added"));
}

constexpr CommandRow kWrittenGettime[] = {
    reads_here(MOSIX_COMMAND(CLOCK_REALTIME)),
    reads_here(MOSIX_COMMAND(CLOCK_MONOTONIC)),
    reads_here(MOSIX_COMMAND(CLOCK_MONOTONIC_RAW)),
    reads_here(MOSIX_COMMAND(CLOCK_REALTIME_COARSE)),
    reads_here(MOSIX_COMMAND(CLOCK_MONOTONIC_COARSE)),
    reads_here(MOSIX_COMMAND(CLOCK_BOOTTIME)),
    reads_here(MOSIX_COMMAND(CLOCK_REALTIME_ALARM)),
    reads_here(MOSIX_COMMAND(CLOCK_BOOTTIME_ALARM)),
    reads_here(MOSIX_COMMAND(CLOCK_TAI)),
    reads_cpu_time(MOSIX_COMMAND(CLOCK_PROCESS_CPUTIME_ID)),
    reads_cpu_time(MOSIX_COMMAND(CLOCK_THREAD_CPUTIME_ID)),
};
constexpr auto kGettime = command_rows(kWrittenGettime);

constexpr Row sleep_by_clock() {
  return MOSIX_CALL(clock_nanosleep)
      .with(value("clockid", "clock_id"), hex("flags", "timer_flags"),
            in("req", bytes(kTimespecBytes), "timespec"), always("rem", bytes(kTimespecBytes), "timespec"));
}
constexpr CommandRow sleeps_at_home(Command clock) {
  return command_row(clock, sleep_by_clock().home("0", kMayBlock | kTimed));
}
constexpr CommandRow sleep_comes_home(Command clock) {
  return command_row(clock, sleep_by_clock().bring_home("a sleep that ends when CPU time has been used"));
}

// A clock of a thread itself, and the raw and coarse ones, are refused by the kernel: home gives its errno.
constexpr CommandRow kWrittenNanosleep[] = {
    sleeps_at_home(MOSIX_COMMAND(CLOCK_REALTIME)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_MONOTONIC)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_BOOTTIME)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_REALTIME_ALARM)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_BOOTTIME_ALARM)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_TAI)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_MONOTONIC_RAW)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_REALTIME_COARSE)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_MONOTONIC_COARSE)),
    sleeps_at_home(MOSIX_COMMAND(CLOCK_THREAD_CPUTIME_ID)),
    sleep_comes_home(MOSIX_COMMAND(CLOCK_PROCESS_CPUTIME_ID)),
};
constexpr auto kNanosleep = command_rows(kWrittenNanosleep);

// A sigevent may name a thread; its tid is the same at home. The value in it is handed back as it is.
constexpr Row timer_of_clock() {
  return MOSIX_CALL(timer_create)
      .with(value("clockid", "clock_id"), in("sevp", bytes(kSigeventBytes)), out("timerid", bytes(4), "int"));
}
constexpr CommandRow timer_at_home(Command clock) { return command_row(clock, timer_of_clock().home("0")); }
constexpr CommandRow timer_comes_home(Command clock) {
  return command_row(clock, timer_of_clock().bring_home("a timer that counts CPU time"));
}

constexpr CommandRow kWrittenTimer[] = {
    timer_at_home(MOSIX_COMMAND(CLOCK_REALTIME)),
    timer_at_home(MOSIX_COMMAND(CLOCK_MONOTONIC)),
    timer_at_home(MOSIX_COMMAND(CLOCK_BOOTTIME)),
    timer_at_home(MOSIX_COMMAND(CLOCK_REALTIME_ALARM)),
    timer_at_home(MOSIX_COMMAND(CLOCK_BOOTTIME_ALARM)),
    timer_at_home(MOSIX_COMMAND(CLOCK_TAI)),
    timer_comes_home(MOSIX_COMMAND(CLOCK_PROCESS_CPUTIME_ID)),
    timer_comes_home(MOSIX_COMMAND(CLOCK_THREAD_CPUTIME_ID)),
};
constexpr auto kTimer = command_rows(kWrittenTimer);

constexpr CommandTable kTables[] = {
    {.number = __NR_clock_gettime, .command_argument = 0, .rows = kGettime},
    {.number = __NR_clock_nanosleep, .command_argument = 0, .rows = kNanosleep},
    {.number = __NR_timer_create, .command_argument = 0, .rows = kTimer},
};

}  // namespace

std::span<const CommandTable> clock_tables() { return kTables; }

}  // namespace mosix
