#include "deputy/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

#include "libmosix/process/maps.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

/// False: we may not.
bool for_each_entry(const std::string& path, const std::function<void(int folder, const char* name)>& act) {
  DIR* listing = opendir(path.c_str());
  if (listing == nullptr) return errno != EACCES && errno != EPERM;
  while (dirent* entry = readdir(listing))
    if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') act(dirfd(listing), entry->d_name);
  closedir(listing);
  return true;
}

void for_each_process(const std::function<void(int)>& act) {
  for_each_entry("/proc", [&](int, const char* name) { act(atoi(name)); });
}

/// All that is in it is in memory or swapped out, and nobody can open it: the name that it was opened by is gone, and it has
/// no other one (as the C library's semaphores have).
bool is_lost_memory(int pid, const MapEntry& entry) {
  constexpr char kFolder[] = "/dev/shm/";
  if (!entry.deleted) return false;
  struct stat facts {};
  bool in_memory =
      entry.path.rfind("/memfd:", 0) == 0 ||
      (entry.path.rfind(kFolder, 0) == 0 && stat(kFolder, &facts) == 0 && facts.st_dev == entry.device);
  if (!in_memory) return false;
  char range[48];
  snprintf(range, sizeof range, "/map_files/%lx-%lx", entry.start, entry.end);
  return stat(("/proc/" + std::to_string(living_thread(pid)) + range).c_str(), &facts) == 0 &&
         facts.st_nlink == 0;
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

std::vector<BoundDescriptor> descriptors_of(const SharedKey& key, bool* all_seen) {
  std::vector<BoundDescriptor> found;
  if (all_seen != nullptr) *all_seen = true;
  int own = getpid();
  for_each_process([&](int pid) {
    if (pid == own) return;
    std::string folder = "/proc/" + std::to_string(living_thread(pid)) + "/fd";
    bool seen = for_each_entry(folder, [&](int at, const char* name) {
      if (leads_to(at, name, key)) found.push_back({pid, atoi(name), key.first, key.second});
    });
    if (!seen && all_seen != nullptr) *all_seen = false;
  });
  return found;
}

std::vector<int32_t> proc_files_of(int pid) {
  constexpr std::string_view kProc = "/proc/";
  std::vector<int32_t> numbers;
  for_each_entry("/proc/" + std::to_string(living_thread(pid)) + "/fd", [&](int folder, const char* name) {
    char target[32];
    ssize_t length = readlinkat(folder, name, target, sizeof target);
    std::string_view path(target, length > 0 ? static_cast<size_t>(length) : 0);
    bool found = path.starts_with(kProc) && path.size() > kProc.size() && isdigit(path[kProc.size()]) != 0;
    if (found) numbers.push_back(atoi(name));
  });
  return numbers;
}

void note_nameless(int pid, std::vector<MapEntry>& maps, FileBindings& files) {
  std::set<SharedKey> wanted, other;
  for (const MapEntry& entry : maps)
    if (SharedKey key{entry.device, entry.inode}; entry.has_inode())
      (entry.shared && is_lost_memory(pid, entry) ? wanted : other).insert(key);
  std::erase_if(wanted, [&](const SharedKey& key) { return other.count(key) != 0 || files.is_bound(key); });
  if (wanted.empty()) return;
  // Huge pages are of another kind, and stay.
  Result<std::vector<MapFlags>> flags = read_map_flags(pid);
  if (!flags) return;
  for (const MapEntry& entry : maps)
    for (const MapFlags& one : *flags)
      if (one.start == entry.start && one.has("ht")) wanted.erase({entry.device, entry.inode});
  std::erase_if(wanted, [](const SharedKey& key) {
    bool all_seen = false;
    return !descriptors_of(key, &all_seen).empty() || !all_seen;
  });
  for (MapEntry& entry : maps) entry.nameless = wanted.count({entry.device, entry.inode}) != 0;
}

}  // namespace mosix
