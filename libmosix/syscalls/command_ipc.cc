// Rows per command: shmctl, semctl and msgctl of System V, and keyctl. Constant data; table.cc looks it up.
//
// On x86-64 the structures are always the 64-bit ones; the flag IPC_64 is not used. The values of a whole set
// of semaphores (GETALL, SETALL) have a length that only the set knows, so they have no row and come home.

#include <linux/keyctl.h>
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

// ---- keyctl: operations on the keyrings of the process at home ------------------------------------------

constexpr CommandRow key_row(Command command, std::string_view returns, Arg arg2 = hex("arg2"),
                             Arg arg3 = hex("arg3"), Arg arg4 = hex("arg4"), Arg arg5 = hex("arg5")) {
  return command_row(command,
                     MOSIX_CALL(keyctl).with(value("operation"), arg2, arg3, arg4, arg5).home(returns));
}
/// The answer is copied as a whole or, if the room is too small, not at all; the result is its length.
constexpr CommandRow key_answer(Command command) {
  return key_row(command, "bytes", value("key"), update("buffer", upto(3)), value("buflen"));
}
constexpr CommandRow key_payload(Command command) {
  return key_row(command, "0", value("key"), in("payload", counted(3)), value("plen"), value("ringid"));
}

// What computes with keys (Diffie-Hellman, public keys) takes structures of pointers, and has no row.
constexpr CommandRow kWrittenKey[] = {
    key_row(MOSIX_COMMAND(KEYCTL_GET_KEYRING_ID), "key", value("key"), value("create")),
    key_row(MOSIX_COMMAND(KEYCTL_JOIN_SESSION_KEYRING), "key", string("name")),
    key_payload(MOSIX_COMMAND(KEYCTL_UPDATE)),
    key_row(MOSIX_COMMAND(KEYCTL_REVOKE), "0", value("key")),
    key_row(MOSIX_COMMAND(KEYCTL_CHOWN), "0", value("key"), value("uid"), value("gid")),
    key_row(MOSIX_COMMAND(KEYCTL_SETPERM), "0", value("key"), hex("perm")),
    key_answer(MOSIX_COMMAND(KEYCTL_DESCRIBE)),
    key_row(MOSIX_COMMAND(KEYCTL_CLEAR), "0", value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_LINK), "0", value("key"), value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_UNLINK), "0", value("key"), value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_SEARCH), "key", value("ringid"), string("type"), string("description"),
            value("dest_ringid")),
    key_answer(MOSIX_COMMAND(KEYCTL_READ)),
    key_payload(MOSIX_COMMAND(KEYCTL_INSTANTIATE)),
    key_row(MOSIX_COMMAND(KEYCTL_NEGATE), "0", value("key"), value("timeout"), value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_SET_REQKEY_KEYRING), "previous", value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_SET_TIMEOUT), "0", value("key"), value("timeout")),
    key_row(MOSIX_COMMAND(KEYCTL_ASSUME_AUTHORITY), "key", value("key")),
    key_answer(MOSIX_COMMAND(KEYCTL_GET_SECURITY)),
    key_row(MOSIX_COMMAND(KEYCTL_SESSION_TO_PARENT), "0"),
    key_row(MOSIX_COMMAND(KEYCTL_REJECT), "0", value("key"), value("timeout"), value("error"),
            value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_INVALIDATE), "0", value("key")),
    key_row(MOSIX_COMMAND(KEYCTL_GET_PERSISTENT), "key", value("uid"), value("ringid")),
    key_row(MOSIX_COMMAND(KEYCTL_RESTRICT_KEYRING), "0", value("ringid"), string("type"),
            string("restriction")),
    key_row(MOSIX_COMMAND(KEYCTL_MOVE), "0", value("key"), value("from_ringid"), value("to_ringid"),
            hex("flags")),
    key_row(MOSIX_COMMAND(KEYCTL_CAPABILITIES), "bytes", update("buffer", upto(2)), value("buflen")),
};
constexpr auto kKey = command_rows(kWrittenKey);

constexpr CommandTable kTables[] = {
    {.number = __NR_shmctl, .command_argument = 1, .rows = kShm},
    {.number = __NR_semctl, .command_argument = 2, .rows = kSem},
    {.number = __NR_msgctl, .command_argument = 1, .rows = kMsg},
    {.number = __NR_keyctl, .command_argument = 0, .rows = kKey},
};

}  // namespace

std::span<const CommandTable> ipc_tables() { return kTables; }

}  // namespace mosix
