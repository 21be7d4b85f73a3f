// Rows per command: ioctl. Constant data; table.cc looks it up. An ioctl without a row brings its process
// home.
//
// The size that an ioctl's number tells is not to be trusted: FS_IOC_GETFLAGS says `long` and fills an int,
// BLKBSZGET says size_t and fills an int, TIOCSIG says int and takes a value. What stands here is what the
// kernel copies. Numbers are not unique either (OSS and DRM share some with terminals): a row is for the
// device that programs open every day.

#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <asm/termios.h>
#include <linux/blkzoned.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/hdreg.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/kd.h>
#include <linux/loop.h>
#include <linux/mtio.h>
#include <linux/nsfs.h>
#include <linux/random.h>
#include <linux/rtc.h>
#include <linux/serial.h>
#include <linux/sockios.h>
#include <linux/vt.h>

#include "libmosix/syscalls/command_tables.h"

namespace mosix {
namespace {

using namespace row_words;

// ---- forms ----------------------------------------------------------------------------------------------

constexpr CommandRow row_of(Command command, Arg arg, std::string_view returns, uint32_t effects) {
  return command_row(command,
                     MOSIX_CALL(ioctl).with(fd(), hex("request", "ioctl_cmd"), arg).home(returns, effects));
}
/// The third argument is not looked at.
constexpr CommandRow bare(Command command, std::string_view returns = "0", uint32_t effects = 0) {
  return row_of(command, hex("arg"), returns, effects);
}
/// The third argument is a number.
constexpr CommandRow takes_value(Command command, uint32_t effects = 0) {
  return row_of(command, value("arg"), "0", effects);
}
constexpr CommandRow opens(Command command, Arg arg = hex("arg")) {
  return row_of(command, arg, "new fd", kAddsFd);
}
constexpr CommandRow reads(Command command, size_t size, std::string_view decode = {}, uint32_t effects = 0) {
  return row_of(command, in("argp", bytes(size), decode), "0", effects);
}
constexpr CommandRow fills(Command command, size_t size, std::string_view decode = {}, uint32_t effects = 0) {
  return row_of(command, out("argp", bytes(size), decode), "0", effects);
}
constexpr CommandRow changes(Command command, size_t size, std::string_view decode = {}) {
  return row_of(command, update("argp", bytes(size), decode), "0", 0);
}
constexpr CommandRow reads_int(Command command, uint32_t effects = 0) {
  return reads(command, sizeof(int), "int", effects);
}
constexpr CommandRow fills_int(Command command) { return fills(command, sizeof(int), "int"); }
constexpr CommandRow fills_long(Command command) { return fills(command, sizeof(long), "ulong"); }

constexpr Command numbered(uint32_t number, std::string_view name) {
  return {.command = number, .name = name};
}

constexpr size_t kTermios = sizeof(termios);
constexpr size_t kTermios2 = sizeof(termios2);
constexpr size_t kTermio = sizeof(termio);
static_assert(kTermios == 36 && kTermios2 == 44 && kTermio == 18 && sizeof(winsize) == 8);

// A change by a process in the background stops it (SIGTTOU); one that drains waits for the line.
constexpr CommandRow kTerminals[] = {
    fills(MOSIX_COMMAND(TCGETS), kTermios, "termios"),
    reads(MOSIX_COMMAND(TCSETS), kTermios, "termios", kMayBlock),
    reads(MOSIX_COMMAND(TCSETSW), kTermios, "termios", kMayBlock),
    reads(MOSIX_COMMAND(TCSETSF), kTermios, "termios", kMayBlock),
    fills(MOSIX_COMMAND(TCGETS2), kTermios2, "termios"),
    reads(MOSIX_COMMAND(TCSETS2), kTermios2, "termios", kMayBlock),
    reads(MOSIX_COMMAND(TCSETSW2), kTermios2, "termios", kMayBlock),
    reads(MOSIX_COMMAND(TCSETSF2), kTermios2, "termios", kMayBlock),
    changes(MOSIX_COMMAND(TCGETA), kTermio),  // its padding is not written
    reads(MOSIX_COMMAND(TCSETA), kTermio, {}, kMayBlock),
    reads(MOSIX_COMMAND(TCSETAW), kTermio, {}, kMayBlock),
    reads(MOSIX_COMMAND(TCSETAF), kTermio, {}, kMayBlock),
    fills(MOSIX_COMMAND(TIOCGLCKTRMIOS), kTermios, "termios"),
    reads(MOSIX_COMMAND(TIOCSLCKTRMIOS), kTermios, "termios"),
    takes_value(MOSIX_COMMAND(TCSBRK), kMayBlock),
    takes_value(MOSIX_COMMAND(TCSBRKP), kMayBlock),
    takes_value(MOSIX_COMMAND(TCXONC), kMayBlock),
    takes_value(MOSIX_COMMAND(TCFLSH), kMayBlock),
    bare(MOSIX_COMMAND(TIOCSBRK), "0", kMayBlock),
    bare(MOSIX_COMMAND(TIOCCBRK), "0", kMayBlock),
    bare(MOSIX_COMMAND(TIOCEXCL)),
    bare(MOSIX_COMMAND(TIOCNXCL)),
    fills_int(MOSIX_COMMAND(TIOCGEXCL)),
    takes_value(MOSIX_COMMAND(TIOCSCTTY)),
    bare(MOSIX_COMMAND(TIOCNOTTY)),
    fills_int(MOSIX_COMMAND(TIOCGPGRP)),
    reads_int(MOSIX_COMMAND(TIOCSPGRP), kMayBlock),
    fills_int(MOSIX_COMMAND(TIOCGSID)),
    fills_int(MOSIX_COMMAND(TIOCOUTQ)),
    reads(MOSIX_COMMAND(TIOCSTI), 1),
    fills(MOSIX_COMMAND(TIOCGWINSZ), sizeof(winsize), "winsize"),
    reads(MOSIX_COMMAND(TIOCSWINSZ), sizeof(winsize), "winsize"),
    bare(MOSIX_COMMAND(TIOCCONS)),
    reads_int(MOSIX_COMMAND(TIOCSETD), kMayBlock),
    fills_int(MOSIX_COMMAND(TIOCGETD)),
    bare(MOSIX_COMMAND(TIOCVHANGUP)),
    fills_int(MOSIX_COMMAND(TIOCGDEV)),

    // Pseudo-terminals.
    fills_int(MOSIX_COMMAND(TIOCGPTN)),
    reads_int(MOSIX_COMMAND(TIOCSPTLCK)),
    fills_int(MOSIX_COMMAND(TIOCGPTLCK)),
    opens(MOSIX_COMMAND(TIOCGPTPEER), hex("flags", "open_flags")),
    reads_int(MOSIX_COMMAND(TIOCPKT)),
    fills_int(MOSIX_COMMAND(TIOCGPKT)),
    takes_value(MOSIX_COMMAND(TIOCSIG)),

    // Serial lines.
    fills_int(MOSIX_COMMAND(TIOCMGET)),
    reads_int(MOSIX_COMMAND(TIOCMBIS)),
    reads_int(MOSIX_COMMAND(TIOCMBIC)),
    reads_int(MOSIX_COMMAND(TIOCMSET)),
    takes_value(MOSIX_COMMAND(TIOCMIWAIT), kMayBlock),
    fills(MOSIX_COMMAND(TIOCGICOUNT), sizeof(serial_icounter_struct)),
    fills_int(MOSIX_COMMAND(TIOCGSOFTCAR)),
    reads_int(MOSIX_COMMAND(TIOCSSOFTCAR)),
    fills(MOSIX_COMMAND(TIOCGSERIAL), sizeof(serial_struct)),
    reads(MOSIX_COMMAND(TIOCSSERIAL), sizeof(serial_struct)),
    fills(MOSIX_COMMAND(TIOCGRS485), sizeof(serial_rs485)),
    changes(MOSIX_COMMAND(TIOCSRS485), sizeof(serial_rs485)),
    fills_int(MOSIX_COMMAND(TIOCSERGETLSR)),

    // The console.
    fills(MOSIX_COMMAND(KDGKBTYPE), 1),
    fills(MOSIX_COMMAND(KDGETLED), 1),
    takes_value(MOSIX_COMMAND(KDSETLED)),
    fills(MOSIX_COMMAND(KDGKBLED), 1),
    takes_value(MOSIX_COMMAND(KDSKBLED)),
    fills_int(MOSIX_COMMAND(KDGETMODE)),
    takes_value(MOSIX_COMMAND(KDSETMODE)),
    fills_int(MOSIX_COMMAND(KDGKBMODE)),
    takes_value(MOSIX_COMMAND(KDSKBMODE)),
    fills_int(MOSIX_COMMAND(KDGKBMETA)),
    takes_value(MOSIX_COMMAND(KDSKBMETA)),
    changes(MOSIX_COMMAND(KDGKBENT), sizeof(kbentry)),
    takes_value(MOSIX_COMMAND(KIOCSOUND)),
    takes_value(MOSIX_COMMAND(KDMKTONE)),
    fills_int(MOSIX_COMMAND(VT_OPENQRY)),
    fills(MOSIX_COMMAND(VT_GETMODE), sizeof(vt_mode)),
    reads(MOSIX_COMMAND(VT_SETMODE), sizeof(vt_mode)),
    fills(MOSIX_COMMAND(VT_GETSTATE), sizeof(vt_stat)),
    takes_value(MOSIX_COMMAND(VT_RELDISP)),
    takes_value(MOSIX_COMMAND(VT_ACTIVATE)),
    takes_value(MOSIX_COMMAND(VT_WAITACTIVE), kMayBlock),
    takes_value(MOSIX_COMMAND(VT_DISALLOCATE)),
};

// ---- any descriptor, files, file systems ----------------------------------------------------------------

constexpr size_t kFileUuidBytes = 17;        // struct fsuuid2: length, 16 bytes
constexpr size_t kFileSysfsPathBytes = 129;  // struct fs_sysfs_path: length, 128 bytes

constexpr CommandRow kFiles[] = {
    fills_int(MOSIX_COMMAND(FIONREAD)),
    reads_int(MOSIX_COMMAND(FIONBIO)),
    reads_int(MOSIX_COMMAND(FIOASYNC)),
    bare(MOSIX_COMMAND(FIOCLEX)),
    bare(MOSIX_COMMAND(FIONCLEX)),
    fills(MOSIX_COMMAND(FIOQSIZE), 8),
    changes(MOSIX_COMMAND(FIBMAP), sizeof(int), "int"),
    row_of(MOSIX_COMMAND(FS_IOC_FIEMAP),
           update("argp",
                  counted_inside(offsetof(fiemap, fm_extent_count), sizeof(fiemap), sizeof(fiemap_extent))),
           "0", 0),
    fills_int(MOSIX_COMMAND(FIGETBSZ)),
    bare(MOSIX_COMMAND(FIFREEZE), "0", kMayBlock),
    bare(MOSIX_COMMAND(FITHAW), "0", kMayBlock),
    changes(MOSIX_COMMAND(FITRIM), sizeof(fstrim_range)),
    row_of(MOSIX_COMMAND(FICLONE), fd("src_fd"), "0", kMayBlock),
    reads(MOSIX_COMMAND(FICLONERANGE), sizeof(file_clone_range), {}, kMayBlock),
    fills(MOSIX_COMMAND(FS_IOC_GETFLAGS), sizeof(int), "int"),
    reads(MOSIX_COMMAND(FS_IOC_SETFLAGS), sizeof(int), "int"),
    fills(MOSIX_COMMAND(FS_IOC_GETVERSION), sizeof(int), "int"),
    reads(MOSIX_COMMAND(FS_IOC_SETVERSION), sizeof(int), "int"),
    fills(MOSIX_COMMAND(FS_IOC_FSGETXATTR), sizeof(fsxattr)),
    reads(MOSIX_COMMAND(FS_IOC_FSSETXATTR), sizeof(fsxattr)),
    fills(numbered(_IOC(_IOC_READ, 0xF5, 12, 4), "F2FS_IOC_GET_FEATURES"), 4, "int"),
    changes(MOSIX_COMMAND(FS_IOC_GETFSLABEL), FSLABEL_MAX),  // btrfs writes as much as the label is long
    reads(MOSIX_COMMAND(FS_IOC_SETFSLABEL), FSLABEL_MAX),
    fills(numbered(_IOC(_IOC_READ, 0x15, 0, kFileUuidBytes), "FS_IOC_GETFSUUID"), kFileUuidBytes),
    fills(numbered(_IOC(_IOC_READ, 0x15, 1, kFileSysfsPathBytes), "FS_IOC_GETFSSYSFSPATH"),
          kFileSysfsPathBytes),

    // Block devices, loop devices, disks and tapes.
    fills_long(MOSIX_COMMAND(BLKGETSIZE)),
    fills(MOSIX_COMMAND(BLKGETSIZE64), 8),
    fills_int(MOSIX_COMMAND(BLKSSZGET)),
    fills_int(MOSIX_COMMAND(BLKPBSZGET)),
    fills_int(MOSIX_COMMAND(BLKBSZGET)),
    reads_int(MOSIX_COMMAND(BLKBSZSET)),
    fills_int(MOSIX_COMMAND(BLKROGET)),
    reads_int(MOSIX_COMMAND(BLKROSET)),
    fills_long(MOSIX_COMMAND(BLKRAGET)),
    takes_value(MOSIX_COMMAND(BLKRASET)),
    fills_long(MOSIX_COMMAND(BLKFRAGET)),
    takes_value(MOSIX_COMMAND(BLKFRASET)),
    fills(MOSIX_COMMAND(BLKSECTGET), 2),
    fills_int(MOSIX_COMMAND(BLKIOMIN)),
    fills_int(MOSIX_COMMAND(BLKIOOPT)),
    fills_int(MOSIX_COMMAND(BLKALIGNOFF)),
    fills_int(MOSIX_COMMAND(BLKDISCARDZEROES)),
    fills(MOSIX_COMMAND(BLKROTATIONAL), 2),
    fills(MOSIX_COMMAND(BLKGETDISKSEQ), 8),
    fills_int(MOSIX_COMMAND(BLKGETZONESZ)),
    fills_int(MOSIX_COMMAND(BLKGETNRZONES)),
    bare(MOSIX_COMMAND(BLKRRPART), "0", kMayBlock),
    bare(MOSIX_COMMAND(BLKFLSBUF), "0", kMayBlock),
    reads(MOSIX_COMMAND(BLKDISCARD), 16, {}, kMayBlock),
    reads(MOSIX_COMMAND(BLKSECDISCARD), 16, {}, kMayBlock),
    reads(MOSIX_COMMAND(BLKZEROOUT), 16, {}, kMayBlock),
    fills(MOSIX_COMMAND(HDIO_GETGEO), sizeof(hd_geometry)),
    row_of(MOSIX_COMMAND(LOOP_SET_FD), fd("file"), "0", 0),
    row_of(MOSIX_COMMAND(LOOP_CHANGE_FD), fd("file"), "0", 0),
    bare(MOSIX_COMMAND(LOOP_CLR_FD)),
    fills(MOSIX_COMMAND(LOOP_GET_STATUS), sizeof(loop_info)),
    reads(MOSIX_COMMAND(LOOP_SET_STATUS), sizeof(loop_info)),
    fills(MOSIX_COMMAND(LOOP_GET_STATUS64), sizeof(loop_info64)),
    reads(MOSIX_COMMAND(LOOP_SET_STATUS64), sizeof(loop_info64)),
    bare(MOSIX_COMMAND(LOOP_SET_CAPACITY)),
    takes_value(MOSIX_COMMAND(LOOP_SET_DIRECT_IO)),
    takes_value(MOSIX_COMMAND(LOOP_SET_BLOCK_SIZE)),
    reads(MOSIX_COMMAND(LOOP_CONFIGURE), sizeof(loop_config)),
    takes_value(MOSIX_COMMAND(LOOP_CTL_ADD)),
    takes_value(MOSIX_COMMAND(LOOP_CTL_REMOVE)),
    bare(MOSIX_COMMAND(LOOP_CTL_GET_FREE), "number"),
    reads(MOSIX_COMMAND(MTIOCTOP), sizeof(mtop), {}, kMayBlock),
    fills(MOSIX_COMMAND(MTIOCGET), sizeof(mtget)),
    fills(MOSIX_COMMAND(MTIOCPOS), sizeof(mtpos)),
};

// ---- sockets and interfaces -----------------------------------------------------------------------------

constexpr size_t kIfreq = sizeof(ifreq);
static_assert(kIfreq == 40 && sizeof(ifconf) == 16 && sizeof(arpreq) == 68);

// The name in a struct ifreq is the question, the rest the answer. Those whose union holds a pointer
// (SIOCETHTOOL, SIOCBONDINFOQUERY, private ones) have no row; neither has rtentry, which points to a name.
constexpr CommandRow asks(Command command) { return changes(command, kIfreq, "ifreq"); }
constexpr CommandRow tells(Command command) { return reads(command, kIfreq, "ifreq"); }

constexpr CommandRow kSockets[] = {
    reads_int(MOSIX_COMMAND(FIOSETOWN)),
    reads_int(MOSIX_COMMAND(SIOCSPGRP)),
    fills_int(MOSIX_COMMAND(FIOGETOWN)),
    fills_int(MOSIX_COMMAND(SIOCGPGRP)),
    fills_int(MOSIX_COMMAND(SIOCATMARK)),
    fills(MOSIX_COMMAND(SIOCGSTAMP_OLD), 16, "timeval"),
    fills(MOSIX_COMMAND(SIOCGSTAMPNS_OLD), 16, "timespec"),
    fills(numbered(0x80108906, "SIOCGSTAMP_NEW"), 16, "timeval"),
    fills(numbered(0x80108907, "SIOCGSTAMPNS_NEW"), 16, "timespec"),
    fills_int(MOSIX_COMMAND(SIOCOUTQNSD)),
    opens(MOSIX_COMMAND(SIOCGSKNS)),
    row_of(MOSIX_COMMAND(SIOCGIFCONF), update("argp", bytes(sizeof(ifconf)), "ifconf"), "0", 0),

    asks(MOSIX_COMMAND(SIOCGIFNAME)),
    asks(MOSIX_COMMAND(SIOCGIFFLAGS)),
    asks(MOSIX_COMMAND(SIOCGIFADDR)),
    asks(MOSIX_COMMAND(SIOCGIFDSTADDR)),
    asks(MOSIX_COMMAND(SIOCGIFBRDADDR)),
    asks(MOSIX_COMMAND(SIOCGIFNETMASK)),
    asks(MOSIX_COMMAND(SIOCGIFMETRIC)),
    asks(MOSIX_COMMAND(SIOCGIFMEM)),
    asks(MOSIX_COMMAND(SIOCGIFMTU)),
    asks(MOSIX_COMMAND(SIOCGIFHWADDR)),
    asks(MOSIX_COMMAND(SIOCGIFINDEX)),
    asks(MOSIX_COMMAND(SIOCGIFPFLAGS)),
    asks(MOSIX_COMMAND(SIOCGIFTXQLEN)),
    asks(MOSIX_COMMAND(SIOCGIFMAP)),
    asks(MOSIX_COMMAND(SIOCGMIIPHY)),
    asks(MOSIX_COMMAND(SIOCGMIIREG)),
    tells(MOSIX_COMMAND(SIOCSIFFLAGS)),
    tells(MOSIX_COMMAND(SIOCSIFADDR)),
    tells(MOSIX_COMMAND(SIOCSIFDSTADDR)),
    tells(MOSIX_COMMAND(SIOCSIFBRDADDR)),
    tells(MOSIX_COMMAND(SIOCSIFNETMASK)),
    tells(MOSIX_COMMAND(SIOCSIFMETRIC)),
    tells(MOSIX_COMMAND(SIOCSIFMTU)),
    tells(MOSIX_COMMAND(SIOCSIFHWADDR)),
    tells(MOSIX_COMMAND(SIOCSIFTXQLEN)),
    changes(MOSIX_COMMAND(SIOCSIFNAME), kIfreq, "ifreq"),
    tells(MOSIX_COMMAND(SIOCADDMULTI)),
    tells(MOSIX_COMMAND(SIOCDELMULTI)),
    changes(MOSIX_COMMAND(SIOCGARP), sizeof(arpreq)),
    reads(MOSIX_COMMAND(SIOCSARP), sizeof(arpreq)),
    reads(MOSIX_COMMAND(SIOCDARP), sizeof(arpreq)),
    reads(MOSIX_COMMAND(SIOCBRADDBR), IFNAMSIZ, "string"),
    reads(MOSIX_COMMAND(SIOCBRDELBR), IFNAMSIZ, "string"),
    tells(MOSIX_COMMAND(SIOCBRADDIF)),
    tells(MOSIX_COMMAND(SIOCBRDELIF)),

    asks(MOSIX_COMMAND(TUNSETIFF)),
    asks(MOSIX_COMMAND(TUNGETIFF)),
    takes_value(MOSIX_COMMAND(TUNSETPERSIST)),
    takes_value(MOSIX_COMMAND(TUNSETOWNER)),
    takes_value(MOSIX_COMMAND(TUNSETGROUP)),
    takes_value(MOSIX_COMMAND(TUNSETOFFLOAD)),
    fills_int(MOSIX_COMMAND(TUNGETFEATURES)),
    reads_int(MOSIX_COMMAND(TUNSETSNDBUF)),
    fills_int(MOSIX_COMMAND(TUNGETSNDBUF)),
    reads_int(MOSIX_COMMAND(TUNSETVNETHDRSZ)),
    fills_int(MOSIX_COMMAND(TUNGETVNETHDRSZ)),
};

// ---- descriptors of the kernel's own kinds --------------------------------------------------------------

constexpr size_t kEpollParamsBytes = 8;      // struct epoll_params
constexpr size_t kMountNamespaceBytes = 16;  // struct mnt_ns_info
constexpr uint32_t namespace_command(uint32_t direction, uint32_t number, size_t size) {
  return _IOC(direction, NSIO, number, static_cast<uint32_t>(size));
}
constexpr uint32_t pidfd_command(uint32_t number) { return _IO(0xFF, number); }
/// struct pidfd_info has grown; its size is a part of the number.
constexpr CommandRow pidfd_info(std::string_view name, size_t size) {
  return changes(numbered(_IOC(_IOC_READ | _IOC_WRITE, 0xFF, 11, static_cast<uint32_t>(size)), name), size);
}
constexpr CommandRow pidfd_opens(uint32_t number, std::string_view name) {
  return opens(numbered(pidfd_command(number), name));
}

constexpr CommandRow kKernelObjects[] = {
    opens(MOSIX_COMMAND(NS_GET_USERNS)),
    opens(MOSIX_COMMAND(NS_GET_PARENT)),
    bare(MOSIX_COMMAND(NS_GET_NSTYPE), "clone flag"),
    fills(MOSIX_COMMAND(NS_GET_OWNER_UID), 4, "int"),
    fills(numbered(namespace_command(_IOC_READ, 5, 8), "NS_GET_MNTNS_ID"), 8),
    row_of(numbered(namespace_command(_IOC_READ, 6, 4), "NS_GET_PID_FROM_PIDNS"), pid(), "pid", 0),
    row_of(numbered(namespace_command(_IOC_READ, 7, 4), "NS_GET_TGID_FROM_PIDNS"), pid(), "pid", 0),
    row_of(numbered(namespace_command(_IOC_READ, 8, 4), "NS_GET_PID_IN_PIDNS"), pid(), "pid", 0),
    row_of(numbered(namespace_command(_IOC_READ, 9, 4), "NS_GET_TGID_IN_PIDNS"), pid(), "pid", 0),
    fills(numbered(namespace_command(_IOC_READ, 10, kMountNamespaceBytes), "NS_MNT_GET_INFO"),
          kMountNamespaceBytes),
    row_of(numbered(namespace_command(_IOC_READ, 11, kMountNamespaceBytes), "NS_MNT_GET_NEXT"),
           out("argp", bytes(kMountNamespaceBytes)), "new fd", kAddsFd),
    row_of(numbered(namespace_command(_IOC_READ, 12, kMountNamespaceBytes), "NS_MNT_GET_PREV"),
           out("argp", bytes(kMountNamespaceBytes)), "new fd", kAddsFd),

    pidfd_opens(1, "PIDFD_GET_CGROUP_NAMESPACE"),
    pidfd_opens(2, "PIDFD_GET_IPC_NAMESPACE"),
    pidfd_opens(3, "PIDFD_GET_MNT_NAMESPACE"),
    pidfd_opens(4, "PIDFD_GET_NET_NAMESPACE"),
    pidfd_opens(5, "PIDFD_GET_PID_NAMESPACE"),
    pidfd_opens(6, "PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE"),
    pidfd_opens(7, "PIDFD_GET_TIME_NAMESPACE"),
    pidfd_opens(8, "PIDFD_GET_TIME_FOR_CHILDREN_NAMESPACE"),
    pidfd_opens(9, "PIDFD_GET_USER_NAMESPACE"),
    pidfd_opens(10, "PIDFD_GET_UTS_NAMESPACE"),
    pidfd_info("PIDFD_GET_INFO/64", 64),
    pidfd_info("PIDFD_GET_INFO/72", 72),
    pidfd_info("PIDFD_GET_INFO/80", 80),

    reads(numbered(_IOC(_IOC_WRITE, 0x8A, 1, kEpollParamsBytes), "EPIOCSPARAMS"), kEpollParamsBytes),
    fills(numbered(_IOC(_IOC_READ, 0x8A, 2, kEpollParamsBytes), "EPIOCGPARAMS"), kEpollParamsBytes),
    reads(numbered(_IOC(_IOC_WRITE, 'T', 0, 8), "TFD_IOC_SET_TICKS"), 8),
    takes_value(numbered(_IOC(_IOC_WRITE, 'I', 0, 4), "INOTIFY_IOC_SETNEXTWD")),

    fills_int(MOSIX_COMMAND(RNDGETENTCNT)),
    reads_int(MOSIX_COMMAND(RNDADDTOENTCNT)),
    bare(MOSIX_COMMAND(RNDZAPENTCNT)),
    bare(MOSIX_COMMAND(RNDCLEARPOOL)),
    bare(MOSIX_COMMAND(RNDRESEEDCRNG)),
    fills(MOSIX_COMMAND(RTC_RD_TIME), sizeof(rtc_time)),
    reads(MOSIX_COMMAND(RTC_SET_TIME), sizeof(rtc_time)),
};

// ---- all of them ----------------------------------------------------------------------------------------

struct Written {
  CommandRow
      rows[std::size(kTerminals) + std::size(kFiles) + std::size(kSockets) + std::size(kKernelObjects)];
};

consteval Written all_rows() {
  Written written{};
  CommandRow* next = written.rows;
  next = std::copy(std::begin(kTerminals), std::end(kTerminals), next);
  next = std::copy(std::begin(kFiles), std::end(kFiles), next);
  next = std::copy(std::begin(kSockets), std::end(kSockets), next);
  std::copy(std::begin(kKernelObjects), std::end(kKernelObjects), next);
  return written;
}

constexpr Written kWritten = all_rows();
constexpr auto kIoctls = command_rows(kWritten.rows);

constexpr CommandTable kTables[] = {{.number = __NR_ioctl, .command_argument = 1, .rows = kIoctls}};

}  // namespace

std::span<const CommandTable> ioctl_tables() { return kTables; }

}  // namespace mosix
