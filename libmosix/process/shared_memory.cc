#include "libmosix/process/shared_memory.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

constexpr char kName[] = "mosix:shared";
constexpr char kPath[] = "/memfd:mosix:shared";
constexpr char kBoundName[] = "mosix:bound";
constexpr char kBoundPath[] = "/memfd:mosix:bound";

SharedKey key_in(const MapEntry& entry) { return {entry.device, entry.inode}; }

/// "7f00-7f01 rw-s ...", the first line of a mapping in smaps.
bool is_head(const char* line, uint64_t* start, uint64_t* end) {
  char* rest = nullptr;
  *start = strtoull(line, &rest, 16);
  if (rest == line || *rest != '-') return false;
  const char* second = rest + 1;
  *end = strtoull(second, &rest, 16);
  return rest != second && *rest == ' ';
}

}  // namespace

bool is_shared_anonymous(const MapEntry& entry) {
  if (!entry.shared || !entry.has_inode()) return false;
  return entry.nameless || (entry.deleted && (entry.path == "/dev/zero" || entry.path == kPath)) ||
         entry.path.rfind("[anon_shmem:", 0) == 0;
}

bool is_shared_file(const MapEntry& entry) {
  return entry.shared && entry.has_inode() && (entry.protection & PROT_WRITE) != 0 &&
         !is_shared_anonymous(entry) && !entry.path.empty() && entry.path[0] == '/';
}

bool is_bound_memory(const MapEntry& entry) {
  return entry.shared && entry.has_inode() && entry.path == kBoundPath;
}

Result<UniqueFd> make_bound_memory(uint64_t bytes) {
  UniqueFd fd(memfd_create(kBoundName, MFD_CLOEXEC));
  if (!fd || ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
    return fail_errno("memory for a mapped file");
  return fd;
}

std::set<SharedKey> shared_memory_in(const std::vector<MapEntry>& maps) {
  std::set<SharedKey> memory;
  for (const MapEntry& entry : maps)
    if (is_shared_anonymous(entry) || is_shared_file(entry) || is_bound_memory(entry))
      memory.insert(key_in(entry));
  return memory;
}

bool maps_any_of(const std::vector<MapEntry>& maps, const std::set<SharedKey>& memory) {
  return std::any_of(maps.begin(), maps.end(), [&](const MapEntry& entry) {
    return entry.shared && entry.has_inode() && memory.count(key_in(entry)) != 0;
  });
}

Area shared_area(const MapEntry& entry, const ProcessMemory& memory) {
  Area area;
  area.start = entry.start;
  area.end = entry.end;
  area.protection = entry.protection;
  area.kind = AreaKind::kShared;
  area.file.device = entry.device;
  area.file.inode = entry.inode;
  area.offset = entry.offset;
  auto readable = [&](uint64_t page) {
    char byte;
    return memory.read(entry.start + page * kPageBytes, &byte, 1).has_value();
  };
  // Seldom is the last page not there.
  uint64_t there = 0, gone = entry.bytes() / kPageBytes;
  if (readable(gone - 1)) there = gone;
  while (there < gone) {
    uint64_t middle = (there + gone) / 2;
    if (readable(middle))
      there = middle + 1;
    else
      gone = middle;
  }
  area.file.size = entry.offset + there * kPageBytes;
  return area;
}

Status check_shared_area(const Area& area) {
  bool sound = area.end > area.start && area.offset % kPageBytes == 0 && area.file.size % kPageBytes == 0 &&
               area.file.size >= area.offset && area.file.size - area.offset <= area.end - area.start;
  return sound ? Status() : fail(EBADMSG, "shared area");
}

Result<bool> has_swapped_pages(int pid, uint64_t start, uint64_t end) {
  struct sysinfo info {};
  if (sysinfo(&info) == 0 && info.totalswap == info.freeswap) return false;
  TRY(std::string text, read_memory_file(pid, "smaps"));
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char* line = text.c_str() + at;
    uint64_t from = 0, to = 0;
    if (is_head(line, &from, &to)) inside = from < end && to > start;
    constexpr char kSwap[] = "Swap:";
    if (inside && strncmp(line, kSwap, sizeof kSwap - 1) == 0 &&
        strtoull(line + sizeof kSwap - 1, nullptr, 10) != 0)
      return true;
    size_t next = text.find('\n', at);
    at = next == std::string::npos ? text.size() : next + 1;
  }
  return false;
}

void add_resident(uint64_t start, const uint8_t* in_core, size_t pages, std::vector<PageSpan>& spans) {
  for (size_t i = 0; i < pages; ++i) {
    if ((in_core[i] & 1) == 0) continue;
    uint64_t address = start + i * kPageBytes;
    if (!spans.empty() && spans.back().address + spans.back().bytes() == address)
      ++spans.back().pages;
    else
      spans.push_back({address, 1});
  }
}

std::vector<PageSpan> SharedClaims::claim(const Area& area, const PageSpan& span) {
  std::lock_guard lock(mutex_);
  std::vector<PageSpan>& taken = taken_[key_of(area)];
  PageSpan wanted{area.offset + (span.address - area.start),
                  span.pages};  // in the memory, not in the process
  std::vector<PageSpan> fresh = subtract_spans({wanted}, taken);
  if (fresh.empty()) return fresh;
  taken.push_back(wanted);
  taken = merge_spans(std::move(taken));
  for (PageSpan& part : fresh) part.address = part.address - area.offset + area.start;
  return fresh;
}

bool SharedClaims::claim_file(const SharedKey& file) {
  std::lock_guard lock(mutex_);
  return files_.insert(file).second;
}

Result<int> SharedPool::open(const Area& area) {
  TRY_VOID(check_shared_area(area));
  std::lock_guard lock(mutex_);
  Piece& piece = pieces_[key_of(area)];
  if (!piece.fd) piece.fd.reset(memfd_create(kName, MFD_CLOEXEC));
  if (!piece.fd) return fail_errno("make shared memory");
  if (area.file.size > piece.bytes) {
    if (ftruncate(piece.fd.get(), static_cast<off_t>(area.file.size)) != 0)
      return fail_errno("size of shared memory");
    piece.bytes = area.file.size;
  }
  return piece.fd.get();
}

size_t SharedRanges::part(uint64_t address, size_t bytes, bool* inside) const {
  auto next = ranges_.upper_bound(address);
  *inside = next != ranges_.end() && next->second.start <= address;
  uint64_t limit = next == ranges_.end() ? ~0ull : *inside ? next->first : next->second.start;
  return static_cast<size_t>(std::min<uint64_t>(bytes, limit - address));
}

Status SharedRanges::put(uint64_t address, const uint8_t* data, size_t bytes) const {
  auto next = ranges_.upper_bound(address);
  if (next == ranges_.end() || next->second.start > address) return fail(EFAULT, "no shared memory there");
  const Range& range = next->second;
  auto offset = static_cast<off_t>(range.offset + (address - range.start));
  while (bytes > 0) {
    ssize_t put = pwrite(range.fd, data, bytes, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return fail_errno("fill shared memory");
    data += put, offset += put, bytes -= static_cast<size_t>(put);
  }
  return {};
}

}  // namespace mosix
