#include "cluster/node_info.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace mosix {
namespace {

uint64_t meminfo_bytes(const std::string& text, const std::string& key) {
  size_t at = text.find(key + ":");
  return at == std::string::npos ? 0 : strtoull(text.c_str() + at + key.size() + 1, nullptr, 10) * 1024;
}

std::string whole_file(const char* path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Flags of the first processor; constant while the machine runs, and cpuinfo is slow on large machines.
const std::string& cpu_flags() {
  static const std::string flags = [] {
    std::ifstream in("/proc/cpuinfo");
    for (std::string line; std::getline(in, line);)
      if (line.rfind("flags", 0) == 0 && line.find(": ") != std::string::npos)
        return line.substr(line.find(": ") + 2);
    return std::string();
  }();
  return flags;
}

uint32_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  return static_cast<uint32_t>(CPU_COUNT(&set));
}

}  // namespace

NodeInfo read_node_info() {
  NodeInfo info;
  utsname name{};
  uname(&name);
  info.kernel = name.release;
  info.cpus = usable_cpus();
  std::string memory = whole_file("/proc/meminfo");
  info.memory_bytes = meminfo_bytes(memory, "MemTotal");
  info.free_bytes = meminfo_bytes(memory, "MemAvailable");
  info.load_milli = static_cast<uint32_t>(strtod(whole_file("/proc/loadavg").c_str(), nullptr) * 1000);
  info.cpu_features = cpu_flags();
  return info;
}

}  // namespace mosix
