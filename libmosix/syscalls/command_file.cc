// Rows per command: fcntl, epoll_ctl and fsconfig. Constant data; table.cc looks it up.
//
// fcntl's commands mostly take and return numbers; locks and owners are structures of one size each.
// F_SETLKW waits for another process, and a deputy that waits in it is interrupted like in any other call.

#include <linux/fcntl.h>
#include <linux/mount.h>

#include "libmosix/syscalls/command_tables.h"

// Newer than the oldest header.
#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY (F_LINUX_SPECIFIC_BASE + 3)
#endif
#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY (F_LINUX_SPECIFIC_BASE + 4)
#endif

namespace mosix {
namespace {

using namespace row_words;

// ---- fcntl ----------------------------------------------------------------------------------------------

constexpr CommandRow fcntl_row(Command command, std::string_view returns, uint32_t effects, Arg arg) {
  return command_row(command,
                     MOSIX_CALL(fcntl).with(fd(), value("cmd", "fcntl_cmd"), arg).home(returns, effects));
}
constexpr CommandRow fcntl_gets(Command command, std::string_view returns) {
  return command_row(command, MOSIX_CALL(fcntl).with(fd(), value("cmd", "fcntl_cmd")).home(returns));
}
constexpr CommandRow fcntl_takes(Command command, Arg arg, std::string_view returns = "0",
                                 uint32_t effects = 0) {
  return fcntl_row(command, returns, effects, arg);
}

constexpr Arg lock_in() { return in("lock", bytes(kFlockBytes), "flock"); }
constexpr Arg lock_asked() { return update("lock", bytes(kFlockBytes), "flock"); }

constexpr CommandRow kWrittenFcntl[] = {
    fcntl_takes(MOSIX_COMMAND(F_DUPFD), value("minimum"), "new fd", kAddsFd),
    fcntl_takes(MOSIX_COMMAND(F_DUPFD_CLOEXEC), value("minimum"), "new fd", kAddsFd),
    fcntl_takes(MOSIX_COMMAND(F_DUPFD_QUERY), fd("other"), "0 or 1"),
    fcntl_gets(MOSIX_COMMAND(F_CREATED_QUERY), "0 or 1"),
    fcntl_gets(MOSIX_COMMAND(F_GETFD), "flags"),
    fcntl_takes(MOSIX_COMMAND(F_SETFD), hex("flags", "fd_cloexec")),
    fcntl_gets(MOSIX_COMMAND(F_GETFL), "flags"),
    fcntl_takes(MOSIX_COMMAND(F_SETFL), hex("flags", "open_flags")),

    fcntl_takes(MOSIX_COMMAND(F_GETLK), lock_asked()),
    fcntl_takes(MOSIX_COMMAND(F_SETLK), lock_in()),
    fcntl_takes(MOSIX_COMMAND(F_SETLKW), lock_in(), "0", kMayBlock),
    fcntl_takes(MOSIX_COMMAND(F_OFD_GETLK), lock_asked()),
    fcntl_takes(MOSIX_COMMAND(F_OFD_SETLK), lock_in()),
    fcntl_takes(MOSIX_COMMAND(F_OFD_SETLKW), lock_in(), "0", kMayBlock),
    fcntl_takes(MOSIX_COMMAND(F_SETLEASE), value("type"), "0", kMayBlock),
    fcntl_gets(MOSIX_COMMAND(F_GETLEASE), "type"),
    fcntl_gets(MOSIX_COMMAND(F_CANCELLK), "0"),

    fcntl_takes(MOSIX_COMMAND(F_SETOWN), pid("owner")),
    fcntl_gets(MOSIX_COMMAND(F_GETOWN), "pid"),
    fcntl_takes(MOSIX_COMMAND(F_SETOWN_EX), in("owner", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_GETOWN_EX), out("owner", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_GETOWNER_UIDS), out("uids", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_SETSIG), signal()),
    fcntl_gets(MOSIX_COMMAND(F_GETSIG), "signal"),
    fcntl_takes(MOSIX_COMMAND(F_NOTIFY), hex("events")),

    fcntl_takes(MOSIX_COMMAND(F_SETPIPE_SZ), value("size"), "bytes"),
    fcntl_gets(MOSIX_COMMAND(F_GETPIPE_SZ), "bytes"),
    fcntl_takes(MOSIX_COMMAND(F_ADD_SEALS), hex("seals")),
    fcntl_gets(MOSIX_COMMAND(F_GET_SEALS), "seals"),
    fcntl_takes(MOSIX_COMMAND(F_GET_RW_HINT), out("hint", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_SET_RW_HINT), in("hint", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_GET_FILE_RW_HINT), out("hint", bytes(8))),
    fcntl_takes(MOSIX_COMMAND(F_SET_FILE_RW_HINT), in("hint", bytes(8))),
};
constexpr auto kFcntl = command_rows(kWrittenFcntl);

// ---- epoll_ctl: a deletion does not look at its event ---------------------------------------------------

enum EpollOperation : uint32_t { EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 };

constexpr CommandRow epoll_row(Command command, Arg event) {
  return command_row(command,
                     MOSIX_CALL(epoll_ctl).with(fd("epfd"), value("op", "epoll_op"), fd(), event).home("0"));
}

constexpr CommandRow kWrittenEpoll[] = {
    epoll_row(MOSIX_COMMAND(EPOLL_CTL_ADD), in("event", bytes(kEpollEventBytes), "epoll_event")),
    epoll_row(MOSIX_COMMAND(EPOLL_CTL_DEL), hex("event")),
    epoll_row(MOSIX_COMMAND(EPOLL_CTL_MOD), in("event", bytes(kEpollEventBytes), "epoll_event")),
};
constexpr auto kEpoll = command_rows(kWrittenEpoll);

// ---- fsconfig: what the value is, the command says ------------------------------------------------------

constexpr int FSCONFIG_CMD_CREATE_EXCL = 8;  // since Linux 6.6

constexpr CommandRow fsconfig_row(Command command, Arg key, Arg payload, Arg aux, uint32_t effects = 0) {
  return command_row(
      command, MOSIX_CALL(fsconfig).with(fd("fs_fd"), value("cmd"), key, payload, aux).home("0", effects));
}

constexpr CommandRow kWrittenFsconfig[] = {
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_FLAG), string("key"), hex("value"), value("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_STRING), string("key"), string("value"), value("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_BINARY), string("key"), in("value", counted(4)), value("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_PATH), string("key"), path("value"), dir_fd("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_PATH_EMPTY), string("key"), path("value"), dir_fd("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_SET_FD), string("key"), hex("value"), fd("aux")),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_CMD_CREATE), hex("key"), hex("value"), value("aux"), kMayBlock),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_CMD_RECONFIGURE), hex("key"), hex("value"), value("aux"), kMayBlock),
    fsconfig_row(MOSIX_COMMAND(FSCONFIG_CMD_CREATE_EXCL), hex("key"), hex("value"), value("aux"), kMayBlock),
};
constexpr auto kFsconfig = command_rows(kWrittenFsconfig);

constexpr CommandTable kTables[] = {
    {.number = __NR_fcntl, .command_argument = 1, .rows = kFcntl},
    {.number = __NR_epoll_ctl, .command_argument = 1, .rows = kEpoll},
    {.number = __NR_fsconfig, .command_argument = 1, .rows = kFsconfig},
};

}  // namespace

std::span<const CommandTable> file_tables() { return kTables; }

}  // namespace mosix
