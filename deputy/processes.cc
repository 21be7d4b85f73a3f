#include "deputy/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "libmosix/process/maps.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

void for_each_entry(const std::string& path, const std::function<void(int folder, const char* name)>& act) {
  DIR* listing = opendir(path.c_str());
  if (listing == nullptr) return;
  while (dirent* entry = readdir(listing))
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') act(dirfd(listing), entry->d_name);
  closedir(listing);
}

void for_each_process(const std::function<void(int)>& act) {
  for_each_entry("/proc", [&](int, const char* name) { act(atoi(name)); });
}

/// Without asking a file server that may not answer.
bool leads_to(int folder, const char* name, const SharedKey& key) {
  struct statx facts {};
  if (statx(folder, name, AT_STATX_DONT_SYNC, STATX_INO, &facts) != 0) return false;
  return makedev(facts.stx_dev_major, facts.stx_dev_minor) == key.first && facts.stx_ino == key.second;
}

}  // namespace

bool is_descendant(int pid, int ancestor) {
  while (pid > 1) {
    Result<ProcStat> stat = read_proc_stat(pid);
    if (!stat) return false;
    if (stat->ppid == ancestor) return true;
    pid = stat->ppid;
  }
  return false;
}

std::vector<int> sharers_at_home(int pid, const std::set<SharedKey>& memory) {
  std::vector<int> sharers;
  if (memory.empty()) return sharers;
  for_each_process([&](int other) {
    if (other == pid) return;
    Result<std::vector<MapEntry>> maps = read_maps(other);
    if (maps && maps_any_of(*maps, memory)) sharers.push_back(other);
  });
  return sharers;
}

std::set<SharedKey> mapped_at_home(const std::set<SharedKey>& memory) {
  std::set<SharedKey> mapped;
  for_each_process([&](int pid) {
    Result<std::vector<MapEntry>> maps = read_maps(pid);
    if (!maps) return;
    for (const MapEntry& entry : *maps)
      if (SharedKey key{entry.device, entry.inode}; memory.count(key) != 0) mapped.insert(key);
  });
  return mapped;
}

std::vector<BoundDescriptor> descriptors_of(const SharedKey& key) {
  std::vector<BoundDescriptor> found;
  int own = getpid();
  for_each_process([&](int pid) {
    if (pid == own) return;
    std::string folder = "/proc/" + std::to_string(living_thread(pid)) + "/fd";
    for_each_entry(folder, [&](int at, const char* name) {
      if (leads_to(at, name, key)) found.push_back({pid, atoi(name), key.first, key.second});
    });
  });
  return found;
}

}  // namespace mosix
