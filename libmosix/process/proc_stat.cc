#include "libmosix/process/proc_stat.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string_view>

#include "libmosix/common/unique_fd.h"

namespace mosix {
namespace {

std::string proc_path(int pid, const std::string& file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

/// Of a process that has ended, /proc answers ENOENT or, when the file was open already, ESRCH. One word for
/// both.
tl::unexpected<Error> fail_proc(const std::string& path) {
  int code = errno == ENOENT ? ESRCH : errno;
  return fail(code, "read " + path);
}

/// "Name:\tvalue" of a status file, value without the blanks in front; nothing if there is no such line.
std::string_view status_field(std::string_view text, std::string_view name) {
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\n', at);
    if (end == std::string_view::npos) end = text.size();
    std::string_view line = text.substr(at, end - at);
    if (line.size() > name.size() && line.starts_with(name) && line[name.size()] == ':') {
      line.remove_prefix(name.size() + 1);
      size_t value = line.find_first_not_of(" \t");
      return value == std::string_view::npos ? std::string_view() : line.substr(value);
    }
    at = end + 1;
  }
  return {};
}

uint64_t status_number(std::string_view text, std::string_view name, int base = 10) {
  return strtoull(std::string(status_field(text, name)).c_str(), nullptr, base);
}

template <class T>
std::vector<T> status_numbers(std::string_view text, std::string_view name) {
  std::istringstream words{std::string(status_field(text, name))};
  std::vector<T> numbers;
  for (int64_t number = 0; words >> number;) numbers.push_back(static_cast<T>(number));
  return numbers;
}

std::array<uint32_t, 4> status_ids(std::string_view text, std::string_view name) {
  std::array<uint32_t, 4> ids{};
  std::vector<uint32_t> numbers = status_numbers<uint32_t>(text, name);
  std::copy_n(numbers.begin(), std::min(numbers.size(), ids.size()), ids.begin());
  return ids;
}

ProcStatus parse_status(std::string_view text) {
  ProcStatus s;
  s.name = status_field(text, "Name");
  std::string_view state = status_field(text, "State");
  s.state = state.empty() ? '?' : state[0];
  s.tgid = static_cast<int>(status_number(text, "Tgid"));
  s.pid = static_cast<int>(status_number(text, "Pid"));
  s.ppid = static_cast<int>(status_number(text, "PPid"));
  s.tracer_pid = static_cast<int>(status_number(text, "TracerPid"));
  s.uid = status_ids(text, "Uid");
  s.gid = status_ids(text, "Gid");
  s.groups = status_numbers<uint32_t>(text, "Groups");
  s.umask = static_cast<uint32_t>(status_number(text, "Umask", 8));
  s.ns_pid = status_numbers<int>(text, "NSpid");
  s.ns_tgid = status_numbers<int>(text, "NStgid");
  s.threads = static_cast<int>(status_number(text, "Threads"));
  s.sig_pending = status_number(text, "SigPnd", 16);
  s.shared_sig_pending = status_number(text, "ShdPnd", 16);
  s.sig_blocked = status_number(text, "SigBlk", 16);
  s.sig_ignored = status_number(text, "SigIgn", 16);
  s.sig_caught = status_number(text, "SigCgt", 16);
  s.cap_inheritable = status_number(text, "CapInh", 16);
  s.cap_permitted = status_number(text, "CapPrm", 16);
  s.cap_effective = status_number(text, "CapEff", 16);
  s.cap_bounding = status_number(text, "CapBnd", 16);
  s.cap_ambient = status_number(text, "CapAmb", 16);
  s.no_new_privs = status_number(text, "NoNewPrivs") != 0;
  s.seccomp = static_cast<int>(status_number(text, "Seccomp"));
  s.seccomp_filters = static_cast<int>(status_number(text, "Seccomp_filters"));
  s.vm_rss_kb = status_number(text, "VmRSS");
  s.vm_lck_kb = status_number(text, "VmLck");
  s.vm_swap_kb = status_number(text, "VmSwap");
  s.vm_hwm_kb = status_number(text, "VmHWM");
  return s;
}

std::string task_file(int tid, const char* file) { return "task/" + std::to_string(tid) + "/" + file; }

}  // namespace

Result<std::string> read_proc_file(int pid, const std::string& file) {
  std::string path = proc_path(pid, file);
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_proc(path);
  // maps and smaps are generated from where the last read ended, page by page: large reads keep them
  // coherent.
  std::string text;
  for (size_t step = 1 << 14;; step = std::min<size_t>(step * 2, 1 << 20)) {
    size_t had = text.size();
    text.resize(had + step);
    ssize_t got = read(fd.get(), text.data() + had, step);
    text.resize(had + (got > 0 ? static_cast<size_t>(got) : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_proc(path);
    if (got == 0) return text;
  }
}

Result<std::string> read_memory_file(int pid, const std::string& file) {
  for (int tid = pid;;) {
    Result<std::string> text = read_proc_file(tid, file);
    if (text && !text->empty()) return text;
    if (tid = living_thread(pid); tid == pid) return text;
  }
}

Result<ProcStat> parse_proc_stat(const std::string& line) {
  // comm is whatever the program chose, so only the last parenthesis counts.
  size_t open = line.find('('), close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open)
    return fail(EBADMSG, "stat line \"" + line + "\"");
  std::vector<std::string> words;
  std::istringstream rest(line.substr(close + 1));
  for (std::string word; rest >> word;) words.push_back(std::move(word));
  // words[n] is the field that proc(5) numbers n + 3; the last one that we use is 52, exit_code.
  if (words.size() < 50) return fail(EBADMSG, "stat line \"" + line + "\"");
  auto number = [&](size_t field) { return strtoull(words[field - 3].c_str(), nullptr, 10); };
  auto whole = [&](size_t field) { return static_cast<int>(strtol(words[field - 3].c_str(), nullptr, 10)); };
  ProcStat s;
  s.pid = atoi(line.c_str());
  s.comm = line.substr(open + 1, close - open - 1);
  s.state = words[0][0];
  s.ppid = whole(4), s.pgrp = whole(5), s.session = whole(6), s.tty = whole(7);
  s.flags = static_cast<uint32_t>(number(9));
  s.utime = number(14), s.stime = number(15);
  s.nice = whole(19), s.threads = whole(20);
  s.start_time = number(22), s.rss_pages = number(24);
  s.start_code = number(26), s.end_code = number(27), s.start_stack = number(28);
  s.start_data = number(45), s.end_data = number(46), s.start_brk = number(47);
  s.arg_start = number(48), s.arg_end = number(49), s.env_start = number(50), s.env_end = number(51);
  s.exit_code = whole(52);
  return s;
}

Result<ProcStat> read_proc_stat(int pid) {
  TRY(std::string line, read_proc_file(pid, "stat"));
  return parse_proc_stat(line);
}

int living_thread(int pid) {
  auto lives = [](const Result<ProcStat>& stat) {
    constexpr uint32_t kExiting = 4;  // PF_EXITING: it may be without memory already
    return stat && stat->state != 'Z' && stat->state != 'X' && (stat->flags & kExiting) == 0;
  };
  if (Result<ProcStat> first = read_proc_stat(pid); !first || lives(first) || first->threads <= 1) return pid;
  Result<std::vector<int>> tids = list_threads(pid);
  if (!tids) return pid;
  for (int tid : *tids)
    if (tid != pid && lives(read_thread_stat(pid, tid))) return tid;
  return pid;
}

Result<ProcStat> read_thread_stat(int pid, int tid) {
  TRY(std::string line, read_proc_file(pid, task_file(tid, "stat")));
  return parse_proc_stat(line);
}

Result<ProcStatus> read_status_fields(int pid) {
  TRY(std::string text, read_proc_file(pid, "status"));
  return parse_status(text);
}

Result<ProcStatus> read_thread_status(int pid, int tid) {
  TRY(std::string text, read_proc_file(pid, task_file(tid, "status")));
  return parse_status(text);
}

Result<std::vector<int>> list_threads(int pid) {
  std::string path = proc_path(pid, "task");
  DIR* folder = opendir(path.c_str());
  if (folder == nullptr) return fail_proc(path);
  std::vector<int> tids;
  while (dirent* entry = readdir(folder))
    if (entry->d_name[0] != '.') tids.push_back(atoi(entry->d_name));
  closedir(folder);
  if (tids.empty()) return fail(ESRCH, "read " + path);
  std::sort(tids.begin(), tids.end());
  return tids;
}

Result<std::vector<int>> list_children(int pid) {
  TRY(std::vector<int> tids, list_threads(pid));
  std::vector<int> children;
  for (int tid : tids) {
    Result<std::string> text = read_proc_file(pid, task_file(tid, "children"));
    if (!text) continue;  // a thread that ended meanwhile has given its children to another
    std::istringstream words(*text);
    for (int child = 0; words >> child;) children.push_back(child);
  }
  std::sort(children.begin(), children.end());
  return children;
}

Result<std::vector<std::pair<uint64_t, uint64_t>>> read_auxv(int pid) {
  TRY(std::string bytes, read_memory_file(pid, "auxv"));
  std::vector<std::pair<uint64_t, uint64_t>> auxv;
  for (size_t at = 0; at + 16 <= bytes.size(); at += 16) {
    uint64_t pair[2];
    memcpy(pair, bytes.data() + at, sizeof(pair));
    if (pair[0] == 0) break;
    auxv.emplace_back(pair[0], pair[1]);
  }
  return auxv;
}

Result<std::string> read_comm(int pid, int tid) {
  TRY(std::string name, read_proc_file(pid, task_file(tid, "comm")));
  if (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

Result<std::string> read_proc_link(int pid, const std::string& link) {
  std::string path = proc_path(pid, link);
  std::string target(4096, '\0');
  ssize_t length = readlink(path.c_str(), target.data(), target.size());
  if (length < 0 && errno == ENOENT) {
    if (int other = living_thread(pid); other != pid) return read_proc_link(other, link);
    errno = ENOENT;
  }
  if (length < 0) return fail_proc(path);
  target.resize(static_cast<size_t>(length));
  return target;
}

Result<std::string> read_exe_path(int pid) {
  TRY(std::string path, read_proc_link(pid, "exe"));
  constexpr std::string_view kDeleted = " (deleted)";
  // A file may really be called so: ask whether the link's target by that name is the same file.
  if (path.ends_with(kDeleted)) {
    struct stat by_link {
    }, by_name{};
    bool named_so = stat(proc_path(pid, "exe").c_str(), &by_link) == 0 && stat(path.c_str(), &by_name) == 0 &&
                    by_link.st_ino == by_name.st_ino && by_link.st_dev == by_name.st_dev;
    if (!named_so) path.resize(path.size() - kDeleted.size());
  }
  return path;
}

Result<bool> same_namespace(int pid, int other_pid, const std::string& kind) {
  TRY(std::string one, read_proc_link(pid, "ns/" + kind));
  TRY(std::string other, read_proc_link(other_pid, "ns/" + kind));
  return one == other;
}

}  // namespace mosix
