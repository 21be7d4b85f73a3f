#include "tools/trace_filter.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "libmosix/syscalls/table.h"

namespace mosix {
namespace {

// strace's classes by subject. What touches files and descriptors is read off the arguments instead.
constexpr std::array kProcessCalls{
    "fork",
    "vfork",
    "clone",
    "clone3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "wait4",
    "waitid",
    "kill",
    "tkill",
    "tgkill",
    "arch_prctl",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "unshare",
};
constexpr std::array kNetworkCalls{
    "socket",  "connect",     "accept",      "accept4",    "sendto",     "recvfrom",
    "sendmsg", "recvmsg",     "sendmmsg",    "recvmmsg",   "shutdown",   "bind",
    "listen",  "getsockname", "getpeername", "socketpair", "setsockopt", "getsockopt",
};
constexpr std::array kSignalCalls{
    "rt_sigaction",    "rt_sigprocmask",
    "rt_sigreturn",    "rt_sigpending",
    "rt_sigtimedwait", "rt_sigqueueinfo",
    "rt_sigsuspend",   "rt_tgsigqueueinfo",
    "sigaltstack",     "kill",
    "tkill",           "tgkill",
    "signalfd",        "signalfd4",
    "pause",           "pidfd_send_signal",
};
constexpr std::array kMemoryCalls{
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "brk",
    "mlock",
    "mlock2",
    "munlock",
    "mlockall",
    "munlockall",
    "msync",
    "mincore",
    "mbind",
    "shmat",
    "shmdt",
    "set_mempolicy",
    "get_mempolicy",
    "migrate_pages",
    "move_pages",
    "remap_file_pages",
    "pkey_mprotect",
    "set_mempolicy_home_node",
    "map_shadow_stack",
    "mseal",
};
constexpr std::array kIpcCalls{
    "shmget",     "shmat",  "shmdt",  "shmctl", "semget", "semop",
    "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl",
};
constexpr std::array kPlaces{"here", "home", "cache", "posted", "split", "brought_home"};
constexpr std::array kOutcomes{"successful", "failed"};

template <size_t kCount>
std::set<int64_t> numbers_of(const std::array<const char*, kCount>& names) {
  std::set<int64_t> numbers;
  for (const SyscallRow& row : syscall_table())
    if (std::find(names.begin(), names.end(), row.name) != names.end()) numbers.insert(row.number);
  return numbers;
}

bool names_file(const Arg& arg) {
  constexpr std::array kNames{"target", "special", "source", "new_root", "put_old"};
  bool path = arg.name.find("path") != std::string_view::npos;
  return arg.kind == ArgKind::kString &&
         (path || std::find(kNames.begin(), kNames.end(), arg.name) != kNames.end());
}

bool is_descriptor(const Arg& arg) { return arg.kind == ArgKind::kFd || arg.kind == ArgKind::kDirFd; }

std::set<int64_t> numbers_with(bool (*wanted)(const Arg&)) {
  std::set<int64_t> numbers;
  for (const SyscallRow& row : syscall_table())
    if (std::any_of(row.args.begin(), row.args.end(), wanted)) numbers.insert(row.number);
  return numbers;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t start = 0; start <= text.size();) {
    size_t end = std::min(text.find(',', start), text.size());
    if (end > start) parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

/// Names out of a fixed choice.
template <size_t kCount>
Status choose(const std::string& set, bool negated, const std::array<const char*, kCount>& choice,
              std::set<std::string>& chosen) {
  chosen.clear();
  for (const std::string& name : split(set)) {
    if (std::find(choice.begin(), choice.end(), name) == choice.end())
      return fail(0, "-e: no `" + name + "`");
    chosen.insert(name);
  }
  if (chosen.empty()) return fail(0, "-e: nothing is named");
  if (!negated) return {};
  std::set<std::string> others;
  for (const char* name : choice)
    if (chosen.count(name) == 0) others.insert(name);
  chosen = others;
  return {};
}

}  // namespace

std::set<int64_t> calls_of_class(const std::string& name) {
  if (name == "file") return numbers_with(names_file);
  if (name == "desc") return numbers_with(is_descriptor);
  if (name == "process") return numbers_of(kProcessCalls);
  if (name == "network" || name == "net") return numbers_of(kNetworkCalls);
  if (name == "signal") return numbers_of(kSignalCalls);
  if (name == "memory") return numbers_of(kMemoryCalls);
  if (name == "ipc") return numbers_of(kIpcCalls);
  return {};
}

Status TraceFilter::add(const std::string& expression) {
  size_t equals = expression.find('=');
  std::string kind = equals == std::string::npos ? "trace" : expression.substr(0, equals);
  std::string set = equals == std::string::npos ? expression : expression.substr(equals + 1);
  bool negated = set.starts_with('!');
  if (negated) set.erase(0, 1);
  if (kind == "trace" || kind == "t") return add_calls(set, negated);
  if (kind == "answered") return choose(set, negated, kPlaces, answered_);
  if (kind == "status") return choose(set, negated, kOutcomes, status_);
  return fail(0, "-e: `" + kind + "` is not one of trace, answered, status");
}

Status TraceFilter::add_calls(const std::string& set, bool negated) {
  std::set<int64_t> chosen;
  bool everything = false, anything = false;
  for (std::string name : split(set)) {
    anything = true;
    bool is_class = name.starts_with('%');
    if (is_class) name.erase(0, 1);
    if (!is_class && name == "all") everything = true;
    if (!is_class && (name == "all" || name == "none")) continue;
    std::set<int64_t> members = calls_of_class(name);
    if (!is_class)
      for (const SyscallRow& row : syscall_table())
        if (row.name == name) members.insert(row.number);
    if (members.empty()) return fail(0, "-e: no call and no class is named `" + name + "`");
    chosen.insert(members.begin(), members.end());
  }
  if (!anything) return fail(0, "-e: nothing is named");
  std::set<int64_t> every;
  for (const SyscallRow& row : syscall_table()) every.insert(row.number);
  if (everything) chosen = every;
  all_calls_ = everything && !negated;
  calls_.clear();
  if (negated)
    std::set_difference(every.begin(), every.end(), chosen.begin(), chosen.end(),
                        std::inserter(calls_, calls_.begin()));
  else
    calls_ = chosen;
  return {};
}

bool TraceFilter::shows(const Json& event) const {
  if (!all_calls_ && calls_.count(field_integer(event, "number", -1)) == 0) return false;
  if (!answered_.empty() && answered_.count(field_text(event, "answered_by")) == 0) return false;
  return status_.empty() || status_.count(is_failure(event) ? "failed" : "successful") != 0;
}

std::string call_name(const Json& event) {
  int64_t number = field_integer(event, "number", -1);
  auto table = syscall_table();
  auto row = std::lower_bound(table.begin(), table.end(), number,
                              [](const SyscallRow& one, int64_t wanted) { return one.number < wanted; });
  if (row != table.end() && row->number == number) return std::string(row->name);
  std::string text = field_text(event, "text", "unknown");
  return text.substr(0, text.find('('));
}

bool is_failure(const Json& event) {
  int64_t result = field_integer(event, "result");
  return result < 0 && result >= -4095;
}

}  // namespace mosix
