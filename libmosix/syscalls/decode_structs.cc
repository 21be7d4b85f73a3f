// Structures by the names that rows use for them (`decode`): what a person wants to see of them, a line each.
// The bytes are a copy of the guest's memory and may be fewer than the structure has; what is missing reads
// as zero. Layouts are the kernel's: where libc's differ (sigaction, termios), offsets stand here.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include <fmt/format.h>

#include "libmosix/syscalls/decode_text.h"

namespace mosix {
namespace {

std::string number(int64_t value) { return fmt::format("{}", value); }
std::string unsigned_number(uint64_t value) { return fmt::format("{}", value); }
std::string hex(uint64_t value) { return fmt::format("{:#x}", value); }

// ---- time -----------------------------------------------------------------------------------------------

std::string time_pair(const StructView& view, size_t offset, std::string_view seconds,
                      std::string_view rest) {
  return Fields()
      .add(seconds, number(view.at<int64_t>(offset)))
      .add(rest, number(view.at<int64_t>(offset + 8)))
      .finish();
}

std::string timespec_at(const StructView& view, size_t offset) {
  switch (view.at<int64_t>(offset + 8)) {
    case UTIME_NOW:
      return "UTIME_NOW";
    case UTIME_OMIT:
      return "UTIME_OMIT";
    default:
      return time_pair(view, offset, "tv_sec", "tv_nsec");
  }
}
std::string timeval_at(const StructView& view, size_t offset) {
  return time_pair(view, offset, "tv_sec", "tv_usec");
}

std::string timespec_text(const StructView& view) { return timespec_at(view, 0); }
std::string timespec_pair_text(const StructView& view) {
  return "[" + timespec_at(view, 0) + ", " + timespec_at(view, 16) + "]";
}
std::string timeval_text(const StructView& view) { return timeval_at(view, 0); }
std::string itimerspec_text(const StructView& view) {
  return Fields().add("it_interval", timespec_at(view, 0)).add("it_value", timespec_at(view, 16)).finish();
}
std::string itimerval_text(const StructView& view) {
  return Fields().add("it_interval", timeval_at(view, 0)).add("it_value", timeval_at(view, 16)).finish();
}
std::string tms_text(const StructView& view) {
  const auto times = view.as<tms>();
  return Fields()
      .add("tms_utime", number(times.tms_utime))
      .add("tms_stime", number(times.tms_stime))
      .add("tms_cutime", number(times.tms_cutime))
      .add("tms_cstime", number(times.tms_cstime))
      .finish();
}

// ---- files ----------------------------------------------------------------------------------------------

std::string file_mode(uint32_t mode) {
  static constexpr std::pair<uint32_t, std::string_view> kTypes[] = {
      {S_IFREG, "S_IFREG"}, {S_IFDIR, "S_IFDIR"}, {S_IFCHR, "S_IFCHR"},   {S_IFBLK, "S_IFBLK"},
      {S_IFIFO, "S_IFIFO"}, {S_IFLNK, "S_IFLNK"}, {S_IFSOCK, "S_IFSOCK"},
  };
  for (const auto& [type, name] : kTypes)
    if ((mode & S_IFMT) == type) return fmt::format("{}|0{:o}", name, mode & ~uint32_t{S_IFMT});
  return fmt::format("0{:o}", mode);
}

bool is_device(uint32_t mode) { return (mode & S_IFMT) == S_IFCHR || (mode & S_IFMT) == S_IFBLK; }

std::string device_text(unsigned major, unsigned minor) {
  return fmt::format("makedev({:#x}, {:#x})", major, minor);
}

std::string stat_text(const StructView& view) {
  const auto status = view.as<struct stat>();
  Fields fields;
  fields.add("st_mode", file_mode(status.st_mode));
  if (is_device(status.st_mode)) {
    fields.add("st_rdev", device_text(major(status.st_rdev), minor(status.st_rdev)));
  } else {
    fields.add("st_size", number(status.st_size));
  }
  return fields.finish();
}

std::string statx_text(const StructView& view) {
  const auto status = view.as<struct statx>();
  return Fields()
      .add("stx_mask", format_flags("statx_mask", status.stx_mask))
      .add("stx_mode", file_mode(status.stx_mode))
      .add("stx_size", unsigned_number(status.stx_size))
      .finish();
}

std::string statfs_text(const StructView& view) {
  const auto status = view.as<struct statfs>();
  return Fields()
      .add("f_type", hex(static_cast<uint64_t>(status.f_type)))
      .add("f_bsize", number(status.f_bsize))
      .add("f_blocks", unsigned_number(status.f_blocks))
      .add("f_bfree", unsigned_number(status.f_bfree))
      .add("f_files", unsigned_number(status.f_files))
      .finish();
}

std::string flock_text(const StructView& view) {
  const auto lock = view.as<struct flock>();
  static constexpr std::string_view kTypes[] = {"F_RDLCK", "F_WRLCK", "F_UNLCK"};
  const auto type = static_cast<uint16_t>(lock.l_type);
  return Fields()
      .add("l_type", type < std::size(kTypes) ? std::string(kTypes[type]) : number(lock.l_type))
      .add("l_whence", format_flags("whence", static_cast<uint64_t>(lock.l_whence)))
      .add("l_start", number(lock.l_start))
      .add("l_len", number(lock.l_len))
      .finish();
}

std::string open_how_text(const StructView& view) {
  return Fields()
      .add("flags", format_flags("open_flags", view.at<uint64_t>(0)))
      .add("mode", format_flags("mode", view.at<uint64_t>(8)))
      .add("resolve", hex(view.at<uint64_t>(16)))
      .finish();
}

/// getdents64's records: only how many there are, as strace has it.
std::string dirents_text(const StructView& view) {
  constexpr size_t kLengthAt = 16, kHeadBytes = 19;
  size_t count = 0, at = 0;
  while (at + kHeadBytes <= view.bytes) {
    const auto length = view.at<uint16_t>(at + kLengthAt);
    if (length < kHeadBytes) break;
    at += length;
    ++count;
  }
  return fmt::format("/* {} entries */", count);
}

std::string fd_pair_text(const StructView& view) {
  return fmt::format("[{}, {}]", view.at<int32_t>(0), view.at<int32_t>(4));
}
std::string offset_text(const StructView& view) { return fmt::format("[{}]", view.as<int64_t>()); }

// ---- waiting for many -----------------------------------------------------------------------------------

std::string pollfd_text(const StructView& view) {
  Items items(view.options.array_items);
  for (size_t at = 0; at + sizeof(pollfd) <= view.bytes && items.has_room(); at += sizeof(pollfd)) {
    const auto entry = view.at<pollfd>(at);
    Fields fields;
    fields.add("fd", number(entry.fd));
    if (entry.fd >= 0) fields.add("events", format_flags("poll_events", static_cast<uint16_t>(entry.events)));
    if (entry.revents != 0)
      fields.add("revents", format_flags("poll_events", static_cast<uint16_t>(entry.revents)));
    items.add(fields.finish());
  }
  return items.finish();
}

std::string epoll_event_text(const StructView& view) {
  Items items(view.options.array_items);
  for (size_t at = 0; at + sizeof(epoll_event) <= view.bytes && items.has_room(); at += sizeof(epoll_event)) {
    items.add(Fields()
                  .add("events", format_flags("epoll_events", view.at<uint32_t>(at)))
                  .add("data", hex(view.at<uint64_t>(at + 4)))
                  .finish());
  }
  return items.finish();
}

/// The members of a set of bits, by their numbers.
std::string bits_text(const StructView& view) {
  std::string text;
  size_t count = 0;
  for (size_t bit = 0; bit < view.bytes * 8; ++bit) {
    if ((view.data[bit / 8] >> bit % 8 & 1) == 0) continue;
    if (count++ == view.options.array_items) {
      text += " ...";
      break;
    }
    text += (text.empty() ? "" : " ") + unsigned_number(bit);
  }
  return "[" + text + "]";
}

// ---- signals and processes ------------------------------------------------------------------------------

std::string sigset_of(uint64_t set) {
  // Of a nearly full set the missing members say more.
  const bool is_complement = __builtin_popcountll(set) > 32;
  if (is_complement) set = ~set;
  std::string text;
  for (int number = 1; number <= 64; ++number) {
    if ((set >> (number - 1) & 1) == 0) continue;
    std::string name = signal_name(number);
    text += (text.empty() ? "" : " ") + (name.starts_with("SIG") ? name.substr(3) : name);
  }
  return (is_complement ? "~[" : "[") + text + "]";
}

std::string sigset_text(const StructView& view) { return sigset_of(view.as<uint64_t>()); }

std::string sigset_argpack_text(const StructView& view) {
  const auto address = view.at<uint64_t>(0);
  uint64_t set = 0;
  const bool is_readable = address != 0 && view.memory.read(address, &set, sizeof(set));
  return Fields()
      .add("sigmask", is_readable ? sigset_of(set) : address_text(address))
      .add("sigsetsize", unsigned_number(view.at<uint64_t>(8)))
      .finish();
}

std::string handler_text(uint64_t handler) {
  return handler == 0 ? "SIG_DFL" : handler == 1 ? "SIG_IGN" : address_text(handler);
}

/// The kernel's order: handler, flags, restorer, mask.
std::string sigaction_text(const StructView& view) {
  return Fields()
      .add("sa_handler", handler_text(view.at<uint64_t>(0)))
      .add("sa_mask", sigset_of(view.at<uint64_t>(24)))
      .add("sa_flags", format_flags("sigaction_flags", view.at<uint64_t>(8)))
      .finish();
}

std::string child_code(int code) {
  static constexpr std::string_view kCodes[] = {"CLD_EXITED",  "CLD_KILLED",  "CLD_DUMPED",
                                                "CLD_TRAPPED", "CLD_STOPPED", "CLD_CONTINUED"};
  return code >= 1 && code <= 6 ? std::string(kCodes[code - 1]) : number(code);
}

std::string signal_code(int signal, int code) {
  switch (code) {
    case SI_USER:
      return "SI_USER";
    case SI_QUEUE:
      return "SI_QUEUE";
    case SI_TIMER:
      return "SI_TIMER";
    case SI_TKILL:
      return "SI_TKILL";
    case SI_KERNEL:
      return "SI_KERNEL";
    default:
      return signal == SIGCHLD ? child_code(code) : number(code);
  }
}

std::string siginfo_text(const StructView& view) {
  siginfo_t info{};
  if (view.bytes != 0) memcpy(&info, view.data, std::min(view.bytes, sizeof(info)));
  if (info.si_signo == 0) return "{}";
  Fields fields;
  fields.add("si_signo", signal_name(info.si_signo)).add("si_code", signal_code(info.si_signo, info.si_code));
  if (info.si_signo == SIGCHLD && info.si_code > 0) {
    const bool exited = info.si_code == CLD_EXITED;
    fields.add("si_pid", number(info.si_pid)).add("si_uid", unsigned_number(info.si_uid));
    fields.add("si_status", exited ? number(info.si_status) : signal_name(info.si_status));
  } else if (info.si_code <= 0) {
    fields.add("si_pid", number(info.si_pid)).add("si_uid", unsigned_number(info.si_uid));
    if (info.si_code == SI_QUEUE) fields.add("si_value", hex(reinterpret_cast<uint64_t>(info.si_ptr)));
  } else {
    fields.add("si_addr", address_text(reinterpret_cast<uint64_t>(info.si_addr)));
  }
  return fields.finish();
}

std::string wait_status_text(const StructView& view) {
  const int status = view.as<int32_t>();
  if (WIFEXITED(status))
    return fmt::format("[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}]", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) {
    return fmt::format("[{{WIFSIGNALED(s) && WTERMSIG(s) == {}{}}}]", signal_name(WTERMSIG(status)),
                       WCOREDUMP(status) ? " && WCOREDUMP(s)" : "");
  }
  if (WIFSTOPPED(status))
    return fmt::format("[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]", signal_name(WSTOPSIG(status)));
  if (WIFCONTINUED(status)) return "[{WIFCONTINUED(s)}]";
  return fmt::format("[{:#x}]", static_cast<uint32_t>(status));
}

std::string limit_value(uint64_t value) {
  if (value == RLIM_INFINITY) return "RLIM_INFINITY";
  return value >= 1024 && value % 1024 == 0 ? fmt::format("{}*1024", value / 1024) : unsigned_number(value);
}
std::string rlimit_text(const StructView& view) {
  return Fields()
      .add("rlim_cur", limit_value(view.at<uint64_t>(0)))
      .add("rlim_max", limit_value(view.at<uint64_t>(8)))
      .finish();
}

std::string rusage_text(const StructView& view) {
  return Fields()
      .add("ru_utime", timeval_at(view, 0))
      .add("ru_stime", timeval_at(view, 16))
      .add("ru_maxrss", number(view.at<int64_t>(32)))
      .finish();
}

std::string clone_args_text(const StructView& view) {
  const auto flags = view.at<uint64_t>(0), signal = view.at<uint64_t>(32);
  Fields fields;
  fields.add("flags", format_flags("clone_flags", flags));
  fields.add("exit_signal", signal == 0 ? "0" : signal_name(static_cast<int>(signal)));
  fields.add("stack", address_text(view.at<uint64_t>(40))).add("stack_size", hex(view.at<uint64_t>(48)));
  return fields.finish();
}

std::string sched_attr_text(const StructView& view) {
  return Fields()
      .add("size", unsigned_number(view.at<uint32_t>(0)))
      .add("sched_policy", format_flags("sched_policy", view.at<uint32_t>(4)))
      .add("sched_nice", number(view.at<int32_t>(16)))
      .add("sched_priority", unsigned_number(view.at<uint32_t>(20)))
      .finish();
}

// ---- systems, terminals ---------------------------------------------------------------------------------

std::string fixed_string(const StructView& view, size_t offset, size_t bytes) {
  if (offset >= view.bytes) return "\"\"";
  const auto* text = reinterpret_cast<const char*>(view.data + offset);
  return quoted(text, strnlen(text, std::min(bytes, view.bytes - offset)), view.options.string_bytes);
}

std::string utsname_text(const StructView& view) {
  constexpr size_t kFieldBytes = 65;
  return Fields()
      .add("sysname", fixed_string(view, 0, kFieldBytes))
      .add("nodename", fixed_string(view, kFieldBytes, kFieldBytes))
      .add("release", fixed_string(view, 2 * kFieldBytes, kFieldBytes))
      .finish();
}

std::string sysinfo_text(const StructView& view) {
  const auto info = view.as<struct sysinfo>();
  return Fields()
      .add("uptime", number(info.uptime))
      .add("totalram", unsigned_number(info.totalram))
      .add("freeram", unsigned_number(info.freeram))
      .add("procs", unsigned_number(info.procs))
      .finish();
}

std::string termios_text(const StructView& view) {
  return Fields()
      .add("c_iflag", hex(view.at<uint32_t>(0)))
      .add("c_oflag", hex(view.at<uint32_t>(4)))
      .add("c_cflag", hex(view.at<uint32_t>(8)))
      .add("c_lflag", hex(view.at<uint32_t>(12)))
      .finish();
}

std::string winsize_text(const StructView& view) {
  return Fields()
      .add("ws_row", unsigned_number(view.at<uint16_t>(0)))
      .add("ws_col", unsigned_number(view.at<uint16_t>(2)))
      .finish();
}

std::string string_text(const StructView& view) { return fixed_string(view, 0, view.bytes); }

std::string int_text(const StructView& view) {
  Items items(view.options.array_items);
  for (size_t at = 0; at + sizeof(int32_t) <= view.bytes && items.has_room(); at += sizeof(int32_t))
    items.add(number(view.at<int32_t>(at)));
  return items.finish();
}
std::string ulong_text(const StructView& view) { return "[" + hex(view.as<uint64_t>()) + "]"; }

// ---- sockets --------------------------------------------------------------------------------------------

std::string sockaddr_view(const StructView& view) { return sockaddr_text(view.data, view.bytes); }

std::string linger_text(const StructView& view) {
  return Fields()
      .add("l_onoff", number(view.at<int32_t>(0)))
      .add("l_linger", number(view.at<int32_t>(4)))
      .finish();
}

std::string ucred_text(const StructView& view) {
  return Fields()
      .add("pid", number(view.at<int32_t>(0)))
      .add("uid", unsigned_number(view.at<uint32_t>(4)))
      .add("gid", unsigned_number(view.at<uint32_t>(8)))
      .finish();
}

std::string ifreq_text(const StructView& view) {
  return Fields().add("ifr_name", fixed_string(view, 0, IFNAMSIZ)).finish();
}

std::string ifconf_text(const StructView& view) {
  return Fields()
      .add("ifc_len", number(view.at<int32_t>(0)))
      .add("ifc_buf", address_text(view.at<uint64_t>(8)))
      .finish();
}

std::string sock_fprog_text(const StructView& view) {
  return Fields()
      .add("len", unsigned_number(view.at<uint16_t>(0)))
      .add("filter", address_text(view.at<uint64_t>(8)))
      .finish();
}

std::string unix_name(const uint8_t* data, size_t bytes) {
  constexpr size_t kPathAt = offsetof(sockaddr_un, sun_path);
  if (bytes <= kPathAt) return {};
  const auto* path = reinterpret_cast<const char*>(data + kPathAt);
  const size_t room = bytes - kPathAt;
  if (path[0] == 0) return "@" + quoted(path + 1, room - 1, room);
  return quoted(path, strnlen(path, room), room);
}

// ---- the list -------------------------------------------------------------------------------------------

struct NamedStruct {
  std::string_view name;
  std::string (*format)(const StructView&);
};

constexpr NamedStruct kStructs[] = {
    {"clone_args", clone_args_text},
    {"cpu_set", bits_text},
    {"dirents", dirents_text},
    {"epoll_event", epoll_event_text},
    {"fd_pair", fd_pair_text},
    {"fd_set", bits_text},
    {"flock", flock_text},
    {"ifconf", ifconf_text},
    {"ifreq", ifreq_text},
    {"int", int_text},
    {"itimerspec", itimerspec_text},
    {"itimerval", itimerval_text},
    {"linger", linger_text},
    {"offset", offset_text},
    {"open_how", open_how_text},
    {"pollfd", pollfd_text},
    {"rlimit", rlimit_text},
    {"rusage", rusage_text},
    {"sched_attr", sched_attr_text},
    {"sigaction", sigaction_text},
    {"siginfo", siginfo_text},
    {"sigset", sigset_text},
    {"sigset_argpack", sigset_argpack_text},
    {"sock_fprog", sock_fprog_text},
    {"sockaddr", sockaddr_view},
    {"stat", stat_text},
    {"statfs", statfs_text},
    {"statx", statx_text},
    {"string", string_text},
    {"sysinfo", sysinfo_text},
    {"termios", termios_text},
    {"timespec", timespec_text},
    {"timespec_pair", timespec_pair_text},
    {"timeval", timeval_text},
    {"tms", tms_text},
    {"ucred", ucred_text},
    {"ulong", ulong_text},
    {"utsname", utsname_text},
    {"wait_status", wait_status_text},
    {"winsize", winsize_text},
};

const NamedStruct* find_struct(std::string_view name) {
  const auto* found = std::find_if(std::begin(kStructs), std::end(kStructs),
                                   [&](const NamedStruct& one) { return one.name == name; });
  return found == std::end(kStructs) ? nullptr : found;
}

}  // namespace

bool is_struct_name(std::string_view decode) { return find_struct(decode) != nullptr; }

std::string format_struct(std::string_view decode, const StructView& view) {
  const NamedStruct* found = find_struct(decode);
  return found == nullptr ? quoted(view.data, view.bytes, view.options.string_bytes) : found->format(view);
}

std::string sockaddr_text(const uint8_t* data, size_t bytes) {
  uint16_t family = 0;
  if (bytes < sizeof(family)) return "{}";
  memcpy(&family, data, sizeof(family));
  Fields fields;
  fields.add("sa_family", format_flags("socket_domain", family));
  char text[INET6_ADDRSTRLEN] = "";
  if (family == AF_INET && bytes >= sizeof(sockaddr_in)) {
    sockaddr_in address;
    memcpy(&address, data, sizeof(address));
    inet_ntop(AF_INET, &address.sin_addr, text, sizeof(text));
    fields.add("sin_port", fmt::format("htons({})", ntohs(address.sin_port)));
    fields.add("sin_addr", fmt::format("inet_addr(\"{}\")", text));
  } else if (family == AF_INET6 && bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 address;
    memcpy(&address, data, sizeof(address));
    inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof(text));
    fields.add("sin6_port", fmt::format("htons({})", ntohs(address.sin6_port)));
    fields.add("sin6_addr", fmt::format("\"{}\"", text));
  } else if (family == AF_UNIX) {
    const std::string name = unix_name(data, bytes);
    if (!name.empty()) fields.add("sun_path", name);
  } else if (family == AF_NETLINK && bytes >= sizeof(sockaddr_nl)) {
    sockaddr_nl address;
    memcpy(&address, data, sizeof(address));
    fields.add("nl_pid", unsigned_number(address.nl_pid)).add("nl_groups", hex(address.nl_groups));
  } else if (bytes > sizeof(family)) {
    fields.add("sa_data", quoted(data + sizeof(family), bytes - sizeof(family), 16));
  }
  return fields.finish();
}

std::string control_text(const uint8_t* data, size_t bytes, const DecodeOptions& options) {
  Items items(options.array_items);
  size_t at = 0;
  while (bytes - at >= sizeof(cmsghdr) && items.has_room()) {
    cmsghdr head;
    memcpy(&head, data + at, sizeof(head));
    if (head.cmsg_len < sizeof(head) || head.cmsg_len > bytes - at) break;
    const uint8_t* content = data + at + sizeof(head);
    const size_t content_bytes = head.cmsg_len - sizeof(head);
    Fields fields;
    fields.add("cmsg_level", format_flags("sockopt_level", static_cast<uint64_t>(head.cmsg_level)));
    if (head.cmsg_level == SOL_SOCKET && head.cmsg_type == SCM_RIGHTS) {
      Items fds(options.array_items);
      for (size_t i = 0; i + sizeof(int) <= content_bytes && fds.has_room(); i += sizeof(int)) {
        int fd;
        memcpy(&fd, content + i, sizeof(fd));
        fds.add(number(fd));
      }
      fields.add("cmsg_type", "SCM_RIGHTS").add("cmsg_data", fds.finish());
    } else {
      fields.add("cmsg_type", number(head.cmsg_type));
      fields.add("cmsg_data", quoted(content, content_bytes, options.string_bytes));
    }
    items.add(fields.finish());
    const size_t step = (head.cmsg_len + 7) / 8 * 8;
    if (step > bytes - at) break;
    at += step;
  }
  return items.finish();
}

}  // namespace mosix
