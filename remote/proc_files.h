// Which descriptors of guests lead into /proc, where what home's kernel says of a process that is away is old. Supervisor
// only, any thread. Whatever is noted here is looked at again when it is used: a number may lead elsewhere by then.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mosix {

class ProcFiles {
 public:
  void add(int pid, uint64_t number);
  bool has(int pid, uint64_t number);
  std::vector<int32_t> of(int pid);
  /// [first, last] of a process are closed, or lead elsewhere.
  void closed(int pid, uint64_t first, uint64_t last);
  /// False: there was nothing to inherit.
  bool inherit(int parent, int child);
  void forget_process(int pid);

  /// What was read from its beginning, for those who read on.
  std::optional<std::string> text(int pid, uint64_t number);
  void keep_text(int pid, uint64_t number, std::string text);

 private:
  std::mutex mutex_;
  std::map<std::pair<int, uint64_t>, std::optional<std::string>> numbers_;
};

/// "/proc/PID/NAME" or "/proc/PID/task/TID/NAME".
struct ProcPath {
  int pid = 0, tid = 0;  ///< tid 0: of the process
  std::string name;
};
std::optional<ProcPath> parse_proc_path(const std::string& path);

}  // namespace mosix
