#include "tools/lab/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace mosix::lab {
namespace {

/// A file without a name that holds `text`, read from its start: unlike a pipe it never blocks the writer.
Result<UniqueFd> text_file(const std::string& text) {
  UniqueFd file(memfd_create("mosixlab-input", MFD_CLOEXEC));
  if (!file) return fail_errno("memfd_create");
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno("write to a memfd");
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

[[noreturn]] void become_program(const std::vector<std::string>& argv, int input, int output) {
  dup2(input, 0);
  dup2(output, 1);
  dup2(output, 2);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::vector<char*> pointers;
  for (const std::string& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  // An administrator's tools lie in sbin, which the PATH of an ordinary user lacks.
  std::string path = getenv("PATH") == nullptr ? "" : getenv("PATH");
  setenv("PATH", (path + ":/usr/sbin:/sbin:/usr/bin:/bin").c_str(), 1);
  execvp(pointers[0], pointers.data());
  _exit(errno == ENOENT ? 127 : 126);
}

std::string whole_memfd(int fd) {
  std::string text(4096, '\0');
  ssize_t got = pread(fd, text.data(), text.size(), 0);
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

Status run_program(const std::vector<std::string>& argv, const std::string& input) {
  TRY(UniqueFd in, text_file(input));
  TRY(UniqueFd out, text_file(""));
  pid_t child = fork();
  if (child < 0) return fail_errno("fork");
  if (child == 0) become_program(argv, in.get(), out.get());
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    return fail(0, argv[0] + " not found (Debian has it in the package iproute2)");
  return fail(0, argv[0] + ": " + whole_memfd(out.get()));
}

void close_all_except(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned next = 3;
  for (int fd : kept) {
    if (fd < 3) continue;
    if (static_cast<unsigned>(fd) > next) syscall(SYS_close_range, next, static_cast<unsigned>(fd) - 1, 0);
    next = static_cast<unsigned>(fd) + 1;
  }
  syscall(SYS_close_range, next, ~0U, 0);
}

void detach_stdio() {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; fd++) dup2(null, fd);
  if (null > 2) close(null);
}

Status write_file(const std::string& path, const std::string& text, mode_t mode) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!file) return fail_errno("create " + path);
  if (fchmod(file.get(), mode) != 0) return fail_errno("chmod " + path);
  if (write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno("write " + path);
  return {};
}

Status write_existing(const std::string& path, const std::string& text) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) return fail_errno("open " + path);
  if (write(file.get(), text.data(), text.size()) < 0) return fail_errno("write " + text + " to " + path);
  return {};
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail(ENOENT, "read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string file_tail(const std::string& path, int lines) {
  Result<std::string> text = read_file(path);
  if (!text || text->empty()) return "";
  size_t start = text->size();
  for (int i = 0; i <= lines && start != std::string::npos && start != 0; i++)
    start = text->rfind('\n', start - 1);
  std::istringstream rest(text->substr(start == std::string::npos || start == 0 ? 0 : start + 1));
  std::string result;
  for (std::string line; std::getline(rest, line);) result += "\n    " + line;
  return result;
}

Status make_folders(const std::string& path, mode_t mode) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail(error.value(), "mkdir " + path);
  if (chmod(path.c_str(), mode) != 0) return fail_errno("chmod " + path);
  return {};
}

Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return fail_errno("pidfd_open " + std::to_string(pid));
  return fd;
}

bool wait_pidfd(int pidfd, int limit_ms) {
  pollfd entry{pidfd, POLLIN, 0};
  int64_t deadline = now_ms() + limit_ms;
  for (;;) {
    int ready = poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, deadline - now_ms())));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

int64_t now_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

Status drop_to(uid_t uid, gid_t gid) {
  if (uid == 0) return {};
  // By number: libc's own tell each thread that it knows of, and in a process made by a bare clone it knows of the
  // parent's, and waits for one that was just being created (the thread sanitizer's, for instance).
  if (syscall(SYS_setgroups, 0L, nullptr) != 0) return fail_errno("setgroups");
  if (syscall(SYS_setresgid, gid, gid, gid) != 0) return fail_errno("setresgid " + std::to_string(gid));
  if (syscall(SYS_setresuid, uid, uid, uid) != 0) return fail_errno("setresuid " + std::to_string(uid));
  return {};
}

}  // namespace mosix::lab
