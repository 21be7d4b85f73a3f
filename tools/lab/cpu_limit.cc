#include "tools/lab/cpu_limit.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "tools/lab/process.h"

namespace mosix::lab {
namespace {

struct Hierarchy {
  std::string folder;
  bool unified = false;
};

bool has_word(const std::string& list, const std::string& word, char separator) {
  std::istringstream words(list);
  for (std::string one; std::getline(words, one, separator);)
    if (one == word || one == word + "\n") return true;
  return false;
}

/// Reads mountinfo: "36 35 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu".
Result<Hierarchy> find_hierarchy() {
  TRY(std::string mounts, read_file("/proc/self/mountinfo"));
  std::istringstream lines(mounts);
  for (std::string line; std::getline(lines, line);) {
    size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream front(line.substr(0, dash)), back(line.substr(dash + 3));
    std::string skip, folder, type, source, options;
    front >> skip >> skip >> skip >> skip >> folder;
    back >> type >> source >> options;
    if (type == "cgroup" && has_word(options, "cpu", ',')) return Hierarchy{folder, false};
    if (type != "cgroup2") continue;
    Result<std::string> controllers = read_file(folder + "/cgroup.controllers");
    if (controllers && has_word(*controllers, "cpu", ' ')) return Hierarchy{folder, true};
  }
  return fail(0, "--cpus: this machine has no cgroup hierarchy with the cpu controller");
}

}  // namespace

Result<std::string> make_cpu_group(const LabSpec& spec, int k) {
  TRY(Hierarchy hierarchy, find_hierarchy());
  std::string folder = hierarchy.folder + "/mosixlab-" + spec.name + "-" + node_name(k);
  if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("--cpus: mkdir " + folder);
  double period_us = std::min(1e6, std::max(5000.0, 1000.0 / spec.cpus));
  std::string period = std::to_string(static_cast<long>(period_us));
  std::string quota = std::to_string(std::max(1000L, static_cast<long>(period_us * spec.cpus)));
  Status set;
  if (hierarchy.unified) {
    write_existing(hierarchy.folder + "/cgroup.subtree_control", "+cpu");
    set = write_existing(folder + "/cpu.max", quota + " " + period);
  } else {
    set = write_existing(folder + "/cpu.cfs_period_us", period);
    if (set) set = write_existing(folder + "/cpu.cfs_quota_us", quota);
  }
  if (!set) {
    rmdir(folder.c_str());
    return fail(set.error().code, "--cpus: " + set.error().what);
  }
  return folder;
}

Status join_cpu_group(const std::string& folder) {
  return folder.empty() ? Status() : write_existing(folder + "/cgroup.procs", "0");
}

Status remove_cpu_group(const std::string& folder) {
  // The kernel lets go of the last dead task a moment after its parent has seen it.
  for (int64_t deadline = now_ms() + 1000;;) {
    if (folder.empty() || rmdir(folder.c_str()) == 0 || errno == ENOENT) return {};
    if (errno != EBUSY || now_ms() > deadline) return fail_errno("rmdir " + folder);
    poll(nullptr, 0, 2);
  }
}

}  // namespace mosix::lab
