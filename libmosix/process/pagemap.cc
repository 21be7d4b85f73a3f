#include "libmosix/process/pagemap.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>

#include "libmosix/common/features.h"
#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

// linux/fs.h of Linux 6.7, younger than the headers that we build with.
// Documentation/admin-guide/mm/pagemap.rst.
struct ScanArgument {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t regions;
  uint64_t region_capacity;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};
struct ScanRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};
static_assert(sizeof(ScanArgument) == 96 && sizeof(ScanRegion) == 24);
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr uint64_t kPageIsFile = 1 << 2;
constexpr uint64_t kPageIsPresent = 1 << 3;
constexpr uint64_t kPageIsSwapped = 1 << 4;
constexpr uint64_t kPageIsZeroFrame = 1 << 5;
constexpr uint64_t kPageIsGuard = 1 << 8;  // Linux 6.15; earlier kernels refuse a scan that names it

// One entry of /proc/PID/pagemap.
constexpr uint64_t kEntryPresent = 1ull << 63;
constexpr uint64_t kEntrySwapped = 1ull << 62;
constexpr uint64_t kEntryFileOrShared = 1ull << 61;
constexpr uint64_t kEntryGuard = 1ull << 58;  // MADV_GUARD_INSTALL: no data, though it looks swapped

void add_span(std::vector<PageSpan>& spans, uint64_t address, uint64_t pages) {
  if (!spans.empty() && spans.back().address + spans.back().bytes() == address)
    spans.back().pages += pages;
  else
    spans.push_back({address, pages});
}

}  // namespace

Result<Pagemap> Pagemap::open(int pid) {
  std::string path = "/proc/" + std::to_string(living_thread(pid)) + "/pagemap";
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(errno == ENOENT ? ESRCH : errno, "open " + path);
  return Pagemap(std::move(file));
}

Result<std::vector<PageSpan>> Pagemap::private_pages(uint64_t start, uint64_t end) const {
  return find(start, end, Which::kPrivate);
}

Result<std::vector<PageSpan>> Pagemap::populated_pages(uint64_t start, uint64_t end) const {
  return find(start, end, Which::kPopulated);
}

Result<std::vector<PageSpan>> Pagemap::find(uint64_t start, uint64_t end, Which which) const {
  std::vector<PageSpan> spans;
  start &= ~(kPageBytes - 1);
  end = (end + kPageBytes - 1) & ~(kPageBytes - 1);
  if (feature_enabled("pagemap_scan")) {
    Status scanned = scan(start, end, which, spans);
    if (scanned) return spans;
    if (scanned.error().code != ENOTTY && scanned.error().code != EINVAL)
      return fail(std::move(scanned.error()));
    spans.clear();  // a kernel before 6.7
  }
  TRY_VOID(read_entries(start, end, which, spans));
  return spans;
}

Status Pagemap::scan(uint64_t start, uint64_t end, Which which, std::vector<PageSpan>& spans) const {
  auto regions = std::make_unique<std::array<ScanRegion, 1024>>();
  ScanArgument argument{};
  argument.size = sizeof(argument);
  argument.end = end;
  argument.regions = reinterpret_cast<uint64_t>(regions->data());
  argument.region_capacity = regions->size();
  argument.category_anyof_mask = kPageIsPresent | kPageIsSwapped;
  argument.return_mask = kPageIsPresent | kPageIsSwapped;
  uint64_t without = kPageIsGuard;
  if (which == Which::kPrivate) without |= kPageIsFile | kPageIsZeroFrame;
  while (start < end) {
    argument.start = start;
    argument.category_mask = argument.category_inverted = without;
    int count = ioctl(file_.get(), kPagemapScan, &argument);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EINVAL && (without & kPageIsGuard) != 0) {
      without &= ~kPageIsGuard;
      continue;
    }
    if (count < 0) return fail_errno("PAGEMAP_SCAN");
    for (int i = 0; i < count; ++i) {
      const ScanRegion& region = (*regions)[static_cast<size_t>(i)];
      add_span(spans, region.start, (region.end - region.start) / kPageBytes);
    }
    // The walk ends early for one reason only, a full array; walk_end has been seen below `end` without.
    if (static_cast<size_t>(count) < regions->size() || argument.walk_end <= start) break;
    start = argument.walk_end;
  }
  return {};
}

Status Pagemap::read_entries(uint64_t start, uint64_t end, Which which, std::vector<PageSpan>& spans) const {
  constexpr uint64_t kBatch = 32768;  // entries; 128 MiB of address space in 256 KiB
  auto entries = std::make_unique<uint64_t[]>(kBatch);
  while (start < end) {
    uint64_t wanted = std::min(kBatch, (end - start) / kPageBytes);
    ssize_t got = pread(file_.get(), entries.get(), wanted * 8, static_cast<off_t>(start / kPageBytes * 8));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("read pagemap");
    if (got < 8) return {};  // beyond the end of user space
    uint64_t count = static_cast<uint64_t>(got) / 8;
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t entry = entries[i];
      bool populated = (entry & (kEntryPresent | kEntrySwapped)) != 0 && (entry & kEntryGuard) == 0;
      if (populated && (which == Which::kPopulated || (entry & kEntryFileOrShared) == 0))
        add_span(spans, start + i * kPageBytes, 1);
    }
    start += count * kPageBytes;
  }
  return {};
}

Result<std::vector<PageSpan>> private_pages(int pid, uint64_t start, uint64_t end) {
  TRY(Pagemap pagemap, Pagemap::open(pid));
  return pagemap.private_pages(start, end);
}

Result<std::vector<PageSpan>> populated_pages(int pid, uint64_t start, uint64_t end) {
  TRY(Pagemap pagemap, Pagemap::open(pid));
  return pagemap.populated_pages(start, end);
}

std::vector<PageSpan> merge_spans(std::vector<PageSpan> spans) {
  std::sort(spans.begin(), spans.end(),
            [](const PageSpan& a, const PageSpan& b) { return a.address < b.address; });
  std::vector<PageSpan> merged;
  for (const PageSpan& span : spans) {
    if (merged.empty() || span.address > merged.back().address + merged.back().bytes()) {
      merged.push_back(span);
      continue;
    }
    uint64_t end = std::max(merged.back().address + merged.back().bytes(), span.address + span.bytes());
    merged.back().pages = (end - merged.back().address) / kPageBytes;
  }
  return merged;
}

std::vector<PageSpan> subtract_spans(const std::vector<PageSpan>& spans, const std::vector<PageSpan>& taken) {
  std::vector<PageSpan> left;
  auto next = taken.begin();
  for (const PageSpan& span : spans) {
    uint64_t at = span.address, end = span.address + span.bytes();
    while (next != taken.end() && next->address + next->bytes() <= at) ++next;
    for (auto cut = next; cut != taken.end() && cut->address < end && at < end; ++cut) {
      if (cut->address > at) left.push_back({at, (cut->address - at) / kPageBytes});
      at = std::max(at, cut->address + cut->bytes());
    }
    if (at < end) left.push_back({at, (end - at) / kPageBytes});
  }
  return left;
}

}  // namespace mosix
