// Rows per command: prctl, arch_prctl, kcmp and get_mempolicy. Constant data; table.cc looks it up.
//
// Most attributes of a process are set and read back at home, where the deputy is that process and where its
// children and its next program inherit them. Here are only those that home cannot hold because they belong
// to memory or registers of the away node; what would change how the custodian may treat its deputy, or what
// a remote cannot do, brings the process home. Options that x86-64 refuses for every process have no row.

#include <asm/prctl.h>
#include <linux/kcmp.h>
#include <linux/mempolicy.h>
#include <linux/prctl.h>

#include "libmosix/syscalls/command_tables.h"

// Newer than the oldest header.
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_GET_AUXV
#define PR_GET_AUXV 0x41555856
#endif
#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77
#endif
#ifndef PR_FUTEX_HASH
#define PR_FUTEX_HASH 78
#endif
#ifndef ARCH_GET_UNTAG_MASK
#define ARCH_GET_UNTAG_MASK 0x4001
#define ARCH_GET_MAX_TAG_BITS 0x4003
#endif
#ifndef ARCH_SHSTK_STATUS
#define ARCH_SHSTK_STATUS 0x5005
#endif

namespace mosix {
namespace {

using namespace row_words;

// ---- prctl ----------------------------------------------------------------------------------------------

constexpr Row prctl_call() {
  return MOSIX_CALL(prctl).with(value("option", "prctl_option"), hex("arg2"), hex("arg3"), hex("arg4"),
                                hex("arg5"));
}
constexpr Row prctl_call(Arg arg2) {
  return MOSIX_CALL(prctl).with(value("option", "prctl_option"), arg2, hex("arg3"), hex("arg4"), hex("arg5"));
}
constexpr Arg int_out() { return out("arg2", bytes(4), "int"); }

/// Numbers only, at home.
constexpr CommandRow at_home(Command option, std::string_view returns = "0") {
  return command_row(option, prctl_call().home(returns));
}
constexpr CommandRow at_home(Command option, Arg arg2, std::string_view returns = "0") {
  return command_row(option, prctl_call(arg2).home(returns));
}
constexpr CommandRow stays_home(Command option, std::string_view why) {
  return command_row(option, prctl_call().bring_home(why));
}

constexpr CommandRow kWrittenPrctl[] = {
    // The name of a thread is read from outside too, on both nodes.
    command_row(MOSIX_COMMAND(PR_SET_NAME),
                prctl_call(short_string("name", 16)).split(Split::kPrctl, "0", 0, "the remote's thread too")),
    at_home(MOSIX_COMMAND(PR_GET_NAME), out("name", bytes(16), "string")),

    at_home(MOSIX_COMMAND(PR_SET_PDEATHSIG), signal()),
    at_home(MOSIX_COMMAND(PR_GET_PDEATHSIG), int_out()),
    at_home(MOSIX_COMMAND(PR_SET_CHILD_SUBREAPER)),
    at_home(MOSIX_COMMAND(PR_GET_CHILD_SUBREAPER), int_out()),
    at_home(MOSIX_COMMAND(PR_SET_TIMERSLACK)),
    at_home(MOSIX_COMMAND(PR_GET_TIMERSLACK), "nanoseconds"),
    at_home(MOSIX_COMMAND(PR_SET_TIMING)),
    at_home(MOSIX_COMMAND(PR_GET_TIMING), "mode"),
    at_home(MOSIX_COMMAND(PR_TIMER_CREATE_RESTORE_IDS)),
    at_home(MOSIX_COMMAND(PR_SET_PTRACER)),
    at_home(MOSIX_COMMAND(PR_TASK_PERF_EVENTS_DISABLE)),
    at_home(MOSIX_COMMAND(PR_TASK_PERF_EVENTS_ENABLE)),
    at_home(MOSIX_COMMAND(PR_MCE_KILL)),
    at_home(MOSIX_COMMAND(PR_MCE_KILL_GET), "policy"),
    at_home(MOSIX_COMMAND(PR_SET_IO_FLUSHER)),
    at_home(MOSIX_COMMAND(PR_GET_IO_FLUSHER), "state"),
    command_row(MOSIX_COMMAND(PR_GET_AUXV), MOSIX_CALL(prctl)
                                                .with(value("option", "prctl_option"), out("auxv", upto(2)),
                                                      value("size"), hex("arg4"), hex("arg5"))
                                                .home("bytes", kPure)),

    // Marks on the whole address space: children and the way home inherit them from the deputy.
    at_home(MOSIX_COMMAND(PR_SET_THP_DISABLE)),
    at_home(MOSIX_COMMAND(PR_GET_THP_DISABLE), "state"),
    at_home(MOSIX_COMMAND(PR_SET_MEMORY_MERGE)),
    at_home(MOSIX_COMMAND(PR_GET_MEMORY_MERGE), "state"),
    stays_home(MOSIX_COMMAND(PR_SET_MDWE), "forbids the mappings that a move makes"),
    at_home(MOSIX_COMMAND(PR_GET_MDWE), "state"),
    stays_home(MOSIX_COMMAND(PR_SET_MM), "changes what the kernel notes about its memory"),

    // Of memory and registers that are away.
    command_row(MOSIX_COMMAND(PR_SET_VMA), prctl_call().here("0", 0, "names an anonymous mapping")),
    command_row(MOSIX_COMMAND(PR_GET_TID_ADDRESS), prctl_call(local("arg2")).here("0")),
    command_row(MOSIX_COMMAND(PR_FUTEX_HASH), prctl_call().here("per command", 0, "futexes are here")),

    // Credentials and sandboxes.
    at_home(MOSIX_COMMAND(PR_GET_DUMPABLE), "state"),
    stays_home(MOSIX_COMMAND(PR_SET_DUMPABLE), "changes who may look into the process"),
    at_home(MOSIX_COMMAND(PR_GET_KEEPCAPS), "state"),
    at_home(MOSIX_COMMAND(PR_SET_KEEPCAPS)),
    at_home(MOSIX_COMMAND(PR_CAPBSET_READ), "state"),
    // As capset: no change of `dumpable`, and whoever looks after it has at least as many.
    at_home(MOSIX_COMMAND(PR_CAPBSET_DROP)),
    at_home(MOSIX_COMMAND(PR_CAP_AMBIENT), "state"),
    at_home(MOSIX_COMMAND(PR_GET_SECUREBITS), "bits"),
    at_home(MOSIX_COMMAND(PR_SET_SECUREBITS)),
    at_home(MOSIX_COMMAND(PR_SET_NO_NEW_PRIVS)),
    at_home(MOSIX_COMMAND(PR_GET_NO_NEW_PRIVS), "state"),
    at_home(MOSIX_COMMAND(PR_GET_SECCOMP), "mode"),
    stays_home(MOSIX_COMMAND(PR_SET_SECCOMP), "its sandbox would judge the deputy"),
    stays_home(MOSIX_COMMAND(PR_SET_SYSCALL_USER_DISPATCH), "intercepts its own system calls"),

    // Of the processor.
    at_home(MOSIX_COMMAND(PR_GET_TSC), int_out()),
    stays_home(MOSIX_COMMAND(PR_SET_TSC), "a mode of the processor that is not moved"),
    at_home(MOSIX_COMMAND(PR_GET_SPECULATION_CTRL), "state"),
    stays_home(MOSIX_COMMAND(PR_SET_SPECULATION_CTRL), "a mode of the processor that is not moved"),
    stays_home(MOSIX_COMMAND(PR_SCHED_CORE), "shares a core of one machine with others"),
};
constexpr auto kPrctl = command_rows(kWrittenPrctl);

// ---- arch_prctl -----------------------------------------------------------------------------------------

constexpr CommandRow register_here(Command code, Arg addr) {
  return command_row(code, MOSIX_CALL(arch_prctl).with(hex("code", "arch_prctl_code"), addr).here("0"));
}
constexpr CommandRow asked_at_home(Command code) {
  return command_row(
      code,
      MOSIX_CALL(arch_prctl).with(hex("code", "arch_prctl_code"), out("addr", bytes(8), "ulong")).home("0"));
}

// What glibc asked for before the kernel had shadow stacks; every kernel refuses the number, home too.
constexpr uint32_t ARCH_CET_STATUS = 0x3001;

constexpr CommandRow kWrittenArchPrctl[] = {
    register_here(MOSIX_COMMAND(ARCH_SET_FS), hex("addr")),
    register_here(MOSIX_COMMAND(ARCH_SET_GS), hex("addr")),
    register_here(MOSIX_COMMAND(ARCH_GET_FS), local("addr")),
    register_here(MOSIX_COMMAND(ARCH_GET_GS), local("addr")),
    asked_at_home(MOSIX_COMMAND(ARCH_GET_XCOMP_SUPP)),
    asked_at_home(MOSIX_COMMAND(ARCH_GET_XCOMP_PERM)),
    asked_at_home(MOSIX_COMMAND(ARCH_GET_XCOMP_GUEST_PERM)),
    asked_at_home(MOSIX_COMMAND(ARCH_GET_UNTAG_MASK)),
    asked_at_home(MOSIX_COMMAND(ARCH_GET_MAX_TAG_BITS)),
    asked_at_home(MOSIX_COMMAND(ARCH_SHSTK_STATUS)),
    command_row(MOSIX_COMMAND(ARCH_CET_STATUS),
                MOSIX_CALL(arch_prctl).with(hex("code", "arch_prctl_code"), hex("addr")).home("0")),
};
constexpr auto kArchPrctl = command_rows(kWrittenArchPrctl);

// ---- kcmp: two processes at home, compared there --------------------------------------------------------

constexpr CommandRow kcmp_row(Command type, Arg idx2) {
  return command_row(
      type, MOSIX_CALL(kcmp).with(pid("pid1"), pid("pid2"), value("type"), hex("idx1"), idx2).home("order"));
}

constexpr CommandRow kWrittenKcmp[] = {
    kcmp_row(MOSIX_COMMAND(KCMP_FILE), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_VM), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_FILES), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_FS), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_SIGHAND), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_IO), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_SYSVSEM), hex("idx2")),
    kcmp_row(MOSIX_COMMAND(KCMP_EPOLL_TFD), in("idx2", bytes(sizeof(kcmp_epoll_slot)))),
};
constexpr auto kKcmp = command_rows(kWrittenKcmp);

// ---- get_mempolicy: with these flags it asks about the thread, not about an address ---------------------

constexpr uint32_t MPOL_OF_THREAD = 0;

constexpr CommandRow mempolicy_row(Command flags) {
  return command_row(flags, MOSIX_CALL(get_mempolicy)
                                .with(out("mode", bytes(4), "int"), update("nodemask", bit_set(2)),
                                      value("maxnode"), hex("addr"), hex("flags"))
                                .home("0"));
}

constexpr CommandRow kWrittenMempolicy[] = {
    mempolicy_row(MOSIX_COMMAND(MPOL_OF_THREAD)),
    mempolicy_row(MOSIX_COMMAND(MPOL_F_MEMS_ALLOWED)),
};
constexpr auto kMempolicy = command_rows(kWrittenMempolicy);

constexpr CommandTable kTables[] = {
    {.number = __NR_prctl, .command_argument = 0, .rows = kPrctl},
    {.number = __NR_arch_prctl, .command_argument = 0, .rows = kArchPrctl},
    {.number = __NR_kcmp, .command_argument = 2, .rows = kKcmp},
    {.number = __NR_get_mempolicy, .command_argument = 4, .rows = kMempolicy},
};

}  // namespace

std::span<const CommandTable> process_tables() { return kTables; }

}  // namespace mosix
