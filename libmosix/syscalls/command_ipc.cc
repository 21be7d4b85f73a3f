// Rows per command: shmctl, semctl and msgctl of System V. Constant data; table.cc looks it up.
//
// On x86-64 the structures are always the 64-bit ones; the flag IPC_64 is not used. The values of a whole set
// of semaphores (GETALL, SETALL) have a length that only the set knows, so they have no row and come home.

#include <linux/msg.h>
#include <linux/sem.h>
#include <linux/shm.h>

#include "libmosix/syscalls/command_tables.h"

namespace mosix {
namespace {

using namespace row_words;

// ---- shmctl ---------------------------------------------------------------------------------------------

constexpr CommandRow shm_row(Command command, Arg payload, std::string_view returns = "0") {
  return command_row(command,
                     MOSIX_CALL(shmctl).with(value("shmid"), value("cmd", "ipc_cmd"), payload).home(returns));
}
constexpr Arg shm_out() { return out("buf", bytes(kShmidDsBytes)); }

constexpr CommandRow kWrittenShm[] = {
    shm_row(MOSIX_COMMAND(IPC_RMID), hex("buf")),
    shm_row(MOSIX_COMMAND(IPC_SET), in("buf", bytes(kShmidDsBytes))),
    shm_row(MOSIX_COMMAND(IPC_STAT), shm_out()),
    shm_row(MOSIX_COMMAND(IPC_INFO), out("buf", bytes(kShminfo64Bytes)), "highest index"),
    shm_row(MOSIX_COMMAND(SHM_INFO), out("buf", bytes(kShmInfoBytes)), "highest index"),
    shm_row(MOSIX_COMMAND(SHM_STAT), shm_out(), "id"),
    shm_row(MOSIX_COMMAND(SHM_STAT_ANY), shm_out(), "id"),
    shm_row(MOSIX_COMMAND(SHM_LOCK), hex("buf")),
    shm_row(MOSIX_COMMAND(SHM_UNLOCK), hex("buf")),
};
constexpr auto kShm = command_rows(kWrittenShm);

// ---- semctl ---------------------------------------------------------------------------------------------

constexpr CommandRow sem_row(Command command, Arg payload, std::string_view returns = "0") {
  return command_row(command, MOSIX_CALL(semctl)
                                  .with(value("semid"), value("semnum"), value("cmd", "ipc_cmd"), payload)
                                  .home(returns));
}
constexpr CommandRow sem_gets(Command command, std::string_view returns) {
  return sem_row(command, hex("arg"), returns);
}
constexpr Arg sem_out() { return out("buf", bytes(kSemidDsBytes)); }

constexpr CommandRow kWrittenSem[] = {
    sem_row(MOSIX_COMMAND(IPC_RMID), hex("arg")),
    sem_row(MOSIX_COMMAND(IPC_SET), in("buf", bytes(kSemidDsBytes))),
    sem_row(MOSIX_COMMAND(IPC_STAT), sem_out()),
    sem_row(MOSIX_COMMAND(IPC_INFO), out("buf", bytes(kSeminfoBytes)), "highest index"),
    sem_row(MOSIX_COMMAND(SEM_INFO), out("buf", bytes(kSeminfoBytes)), "highest index"),
    sem_row(MOSIX_COMMAND(SEM_STAT), sem_out(), "id"),
    sem_row(MOSIX_COMMAND(SEM_STAT_ANY), sem_out(), "id"),
    sem_gets(MOSIX_COMMAND(GETPID), "pid"),
    sem_gets(MOSIX_COMMAND(GETVAL), "value"),
    sem_gets(MOSIX_COMMAND(GETNCNT), "waiters"),
    sem_gets(MOSIX_COMMAND(GETZCNT), "waiters"),
    sem_row(MOSIX_COMMAND(SETVAL), value("val")),
};
constexpr auto kSem = command_rows(kWrittenSem);

// ---- msgctl ---------------------------------------------------------------------------------------------

constexpr CommandRow msg_row(Command command, Arg payload, std::string_view returns = "0") {
  return command_row(command,
                     MOSIX_CALL(msgctl).with(value("msqid"), value("cmd", "ipc_cmd"), payload).home(returns));
}
constexpr Arg msg_out() { return out("buf", bytes(kMsqidDsBytes)); }

constexpr CommandRow kWrittenMsg[] = {
    msg_row(MOSIX_COMMAND(IPC_RMID), hex("buf")),
    msg_row(MOSIX_COMMAND(IPC_SET), in("buf", bytes(kMsqidDsBytes))),
    msg_row(MOSIX_COMMAND(IPC_STAT), msg_out()),
    msg_row(MOSIX_COMMAND(IPC_INFO), out("buf", bytes(kMsgInfoBytes)), "highest index"),
    msg_row(MOSIX_COMMAND(MSG_INFO), out("buf", bytes(kMsgInfoBytes)), "highest index"),
    msg_row(MOSIX_COMMAND(MSG_STAT), msg_out(), "id"),
    msg_row(MOSIX_COMMAND(MSG_STAT_ANY), msg_out(), "id"),
};
constexpr auto kMsg = command_rows(kWrittenMsg);

constexpr CommandTable kTables[] = {
    {.number = __NR_shmctl, .command_argument = 1, .rows = kShm},
    {.number = __NR_semctl, .command_argument = 2, .rows = kSem},
    {.number = __NR_msgctl, .command_argument = 1, .rows = kMsg},
};

}  // namespace

std::span<const CommandTable> ipc_tables() { return kTables; }

}  // namespace mosix
