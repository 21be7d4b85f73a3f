#include "deputy/areas.h"

#include <sys/stat.h>

#include <map>
#include <optional>

#include "libmosix/agent/agent.h"
#include "libmosix/process/proc_stat.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {
namespace {

/// Size and time of the file that is mapped, if its path still leads to it. The kernel's device number in
/// maps differs from stat's on btrfs and overlayfs; path and inode together are sure enough.
std::optional<FileKey> key_of(int pid, const MapEntry& entry) {
  if (entry.deleted || entry.path.empty() || entry.path[0] != '/') return std::nullopt;
  struct stat64 facts {};
  std::string path = "/proc/" + std::to_string(living_thread(pid)) + "/root" + entry.path;
  if (stat64(path.c_str(), &facts) != 0 || facts.st_ino != entry.inode || !S_ISREG(facts.st_mode))
    return std::nullopt;
  FileKey key;
  key.device = entry.device;
  key.inode = entry.inode;
  key.size = static_cast<uint64_t>(facts.st_size);
  key.mtime_ns = facts.st_mtim.tv_sec * 1'000'000'000 + facts.st_mtim.tv_nsec;
  return key;
}

class Describer {
 public:
  Describer(const ProcessMemory& memory, const std::map<SharedKey, FileKey>& bound)
      : memory_(memory), bound_(bound) {}

  void add(const MapEntry& entry) {
    if (is_vdso_part(entry)) return add_vdso(entry);
    if (is_shared_anonymous(entry)) return push(shared_area(entry, memory_), false);
    Area area;
    area.start = entry.start;
    area.end = entry.end;
    area.protection = entry.protection;
    area.offset = entry.offset;
    area.path = entry.path;
    bool whole = false;
    auto bound = entry.shared ? bound_.find({entry.device, entry.inode}) : bound_.end();
    if (bound != bound_.end()) {
      area.kind = AreaKind::kBound;
      area.file = bound->second;
    } else if (entry.has_inode() && entry.path != "/dev/zero") {
      if (std::optional<FileKey> key = cached_key(entry)) {
        area.kind = AreaKind::kFile;
        area.file = *key;
      } else {
        whole = true;
      }
    } else if (entry.path == "[stack]") {
      area.kind = AreaKind::kStack;
    }
    push(std::move(area), whole);
  }

  AreaList take() { return std::move(list_); }

 private:
  void push(Area area, bool whole) {
    list_.areas.push_back(std::move(area));
    list_.whole.push_back(whole);
  }

  void add_vdso(const MapEntry& entry) {
    if (!list_.areas.empty() && list_.areas.back().kind == AreaKind::kVdso) {
      list_.areas.back().end = entry.end;
      return;
    }
    Area area;
    area.start = entry.start;
    area.end = entry.end;
    area.protection = PROT_READ | PROT_EXEC;
    area.kind = AreaKind::kVdso;
    area.path = "[vdso]";
    push(std::move(area), false);
  }

  const std::optional<FileKey>& cached_key(const MapEntry& entry) {
    auto [at, fresh] = keys_.try_emplace({entry.device, entry.inode});
    if (fresh) at->second = key_of(memory_.pid(), entry);
    return at->second;
  }

  const ProcessMemory& memory_;
  const std::map<SharedKey, FileKey>& bound_;
  AreaList list_;
  std::map<std::pair<uint64_t, uint64_t>, std::optional<FileKey>> keys_;
};

}  // namespace

bool is_vdso_part(const MapEntry& entry) {
  return entry.path == "[vdso]" || entry.path == "[vvar]" || entry.path == "[vvar_vclock]";
}

AreaList describe_areas(const ProcessMemory& memory, const std::vector<MapEntry>& maps, uint64_t window,
                        const std::map<SharedKey, FileKey>& bound) {
  Describer describer(memory, bound);
  for (const MapEntry& entry : maps) {
    bool ours = entry.start >= window && entry.start < window + kWindowBytes;
    if (!ours && entry.path != "[vsyscall]") describer.add(entry);
  }
  return describer.take();
}

}  // namespace mosix
