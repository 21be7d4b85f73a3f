#include "tools/check_probe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>

#include "libmosix/common/unique_fd.h"

namespace mosix {
namespace {

/// Making a network namespace waits for the kernel's end of others: seconds, where many come and go.
constexpr int kProbeLimitMs = 30'000;
constexpr unsigned kNobody = 65534;

/// Everything up to the end of the stream, or until the limit.
std::string read_until_end(int fd, bool& late) {
  std::string text;
  char part[4096];
  for (;;) {
    pollfd item{fd, POLLIN, 0};
    int ready = poll(&item, 1, kProbeLimitMs);
    if (ready < 0 && errno == EINTR) continue;
    if (late = ready == 0; ready <= 0) return text;
    ssize_t got = read(fd, part, sizeof part);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(part, static_cast<size_t>(got));
  }
}

bool become_nobody() {
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0)
    return false;
  // A change of identity makes the process undumpable, and /proc/self root's: an ordinary login is not so.
  return prctl(PR_SET_DUMPABLE, 1) == 0;
}

/// The child's side: one byte for the verdict, then the detail.
[[noreturn]] void report_and_exit(int fd, const ProbeResult& result) {
  std::string text = (result.ok ? "+" : "-") + result.detail;
  ssize_t written = write(fd, text.data(), text.size());
  _exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
}

ProbeResult isolated(bool as_nobody, const std::function<ProbeResult()>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacks("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  pid_t child = fork();
  if (child < 0) return lacks("fork");
  if (child == 0) {
    setpgid(0, 0);
    reader.reset();
    if (as_nobody && !become_nobody()) report_and_exit(writer.get(), lacks("become an ordinary user"));
    report_and_exit(writer.get(), body());
  }
  writer.reset();
  bool late = false;
  std::string text = read_until_end(reader.get(), late);
  kill(-child, SIGKILL);  // whatever the probe started is in its group
  kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (late) return lacks_because("no answer within 30 s");
  if (!text.empty()) return {text[0] == '+', text.substr(1)};
  return lacks_because(WIFSIGNALED(status) ? fmt::format("the probe was ended by signal {}", WTERMSIG(status))
                                           : "the probe ended without an answer");
}

}  // namespace

ProbeResult works(std::string detail) { return {true, std::move(detail)}; }
ProbeResult lacks(const std::string& what) { return {false, what + ": " + strerror(errno)}; }
ProbeResult lacks_because(std::string detail) { return {false, std::move(detail)}; }

ProbeResult in_child(const std::function<ProbeResult()>& body) { return isolated(false, body); }
ProbeResult in_child_as_nobody(const std::function<ProbeResult()>& body) { return isolated(true, body); }

ProbeResult towards_sibling(bool permits, const std::function<ProbeResult(int pid)>& act) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacks("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  pid_t target = fork();
  if (target < 0) return lacks("fork");
  if (target == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (permits) prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    if (write(writer.get(), "r", 1) != 1) _exit(1);
    for (;;) pause();
  }
  writer.reset();
  char ready;
  ProbeResult result = read(reader.get(), &ready, 1) == 1 ? in_child([&] { return act(target); })
                                                          : lacks_because("the target did not start");
  kill(target, SIGKILL);
  while (waitpid(target, nullptr, 0) < 0 && errno == EINTR) continue;
  return result;
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool write_file(const std::string& path, const std::string& text) {
  UniqueFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace mosix
