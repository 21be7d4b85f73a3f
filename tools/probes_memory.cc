// Probes of how memory is followed while it moves: faults served on demand, pages found that have changed.

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "libmosix/common/unique_fd.h"
#include "tools/check_probe.h"

namespace mosix {
namespace {

constexpr size_t kPage = 4096;

// Newer than Debian 12's headers: asynchronous write protection and PAGEMAP_SCAN, Linux 6.7.
constexpr uint64_t kFeatureWpUnpopulated = 1 << 13;
constexpr uint64_t kFeatureWpAsync = 1 << 15;
struct ScanArgument {
  uint64_t size, flags, start, end, walk_end, regions, region_count, max_pages;
  uint64_t category_inverted, category_mask, category_any_of, return_mask;
};
struct ScanRegion {
  uint64_t start, end, categories;
};
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArgument);
constexpr uint64_t kScanWpMatching = 1, kScanCheckWpAsync = 2;
constexpr uint64_t kPageIsWritten = 2;

char* fresh_pages(size_t count) {
  void* pages = mmap(nullptr, count * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : static_cast<char*>(pages);
}

/// Serves one missing page: waits for the fault, then puts a page full of 'm' there.
ProbeResult serve_one_fault(int faults, char* page) {
  pollfd item{faults, POLLIN, 0};
  if (poll(&item, 1, 5000) != 1) return lacks_because("no fault was reported");
  uffd_msg message{};
  if (read(faults, &message, sizeof message) != sizeof message) return lacks("read a fault");
  static char content[kPage] __attribute__((aligned(kPage)));
  memset(content, 'm', sizeof content);
  uffdio_copy copy{};
  copy.dst = reinterpret_cast<uint64_t>(page);
  copy.src = reinterpret_cast<uint64_t>(content);
  copy.len = kPage;
  return ioctl(faults, UFFDIO_COPY, &copy) == 0 ? works() : lacks("UFFDIO_COPY");
}

/// A descriptor that reports faults of the kernel too, as the forwarded calls of a guest need.
UniqueFd open_userfaultfd() {
  UniqueFd faults(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (faults) return faults;
  int code = errno;
  UniqueFd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) faults.reset(ioctl(device.get(), _IO(0xAA, 0x00), O_CLOEXEC | O_NONBLOCK));
  errno = code;
  return faults;
}

ProbeResult probe_userfaultfd() {
  UniqueFd faults = open_userfaultfd();
  if (!faults) return lacks("userfaultfd for faults of the kernel");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_EVENT_FORK;
  if (ioctl(faults.get(), UFFDIO_API, &api) != 0) {
    // Following forks needs CAP_SYS_PTRACE; a guest that never forks can do without.
    faults = open_userfaultfd();
    api.features = 0;
    if (!faults || ioctl(faults.get(), UFFDIO_API, &api) != 0) return lacks("UFFDIO_API");
  }
  char* page = fresh_pages(1);
  uffdio_register area{};
  area.range = {reinterpret_cast<uint64_t>(page), kPage};
  area.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(faults.get(), UFFDIO_REGISTER, &area) != 0) return lacks("UFFDIO_REGISTER");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return lacks("pipe");
  ssize_t written = 0;
  std::thread toucher([&] { written = write(ends[1], page, 1); });  // the kernel touches the page
  ProbeResult served = serve_one_fault(faults.get(), page);
  if (!served.ok) faults.reset();  // lets the toucher go on, with a page of zeros
  toucher.join();
  if (served.ok && (written != 1 || *page != 'm')) return lacks_because("the page did not arrive");
  return served;
}

ProbeResult probe_pagemap_scan() {
  UniqueFd guard(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!guard) return lacks("userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatureWpAsync | kFeatureWpUnpopulated;
  if (ioctl(guard.get(), UFFDIO_API, &api) != 0) return lacks("asynchronous write protection");
  constexpr size_t kCount = 16;
  char* pages = fresh_pages(kCount);
  uffdio_register area{};
  area.range = {reinterpret_cast<uint64_t>(pages), kCount * kPage};
  area.mode = UFFDIO_REGISTER_MODE_WP;
  if (ioctl(guard.get(), UFFDIO_REGISTER, &area) != 0) return lacks("UFFDIO_REGISTER");
  UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap) return lacks("open /proc/self/pagemap");
  ScanRegion found[4]{};
  ScanArgument scan{};
  scan.size = sizeof scan;
  scan.flags = kScanWpMatching | kScanCheckWpAsync;
  scan.start = area.range.start;
  scan.end = area.range.start + area.range.len;
  scan.regions = reinterpret_cast<uint64_t>(found);
  scan.region_count = 4;
  scan.category_mask = scan.return_mask = kPageIsWritten;
  if (ioctl(pagemap.get(), kPagemapScan, &scan) < 0) return lacks("PAGEMAP_SCAN");
  pages[5 * kPage] = 1;
  int regions = ioctl(pagemap.get(), kPagemapScan, &scan);
  if (regions < 0) return lacks("PAGEMAP_SCAN");
  bool right = regions == 1 && found[0].start == area.range.start + 5 * kPage;
  return right ? works() : lacks_because("a written page was not found");
}

ProbeResult probe_soft_dirty() {
  char* page = fresh_pages(1);
  *page = 1;
  auto dirty = [page] {
    uint64_t entry = 0;
    UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    auto offset = static_cast<off_t>(reinterpret_cast<uint64_t>(page) / kPage * sizeof entry);
    if (pread(pagemap.get(), &entry, sizeof entry, offset) != sizeof entry) return false;
    return (entry >> 55 & 1) != 0;
  };
  if (!write_file("/proc/self/clear_refs", "4")) return lacks("write /proc/self/clear_refs");
  if (dirty()) return lacks_because("marks are not cleared");
  *page = 2;
  return dirty() ? works() : lacks_because("a written page is not marked (no CONFIG_MEM_SOFT_DIRTY)");
}

std::string userfaultfd_cure() {
  if (first_line("/proc/sys/vm/unprivileged_userfaultfd") == "0")
    return "sysctl vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd (Linux 6.1 and newer)";
  return "a kernel with CONFIG_USERFAULTFD; in a container, a seccomp profile that allows it";
}

const Probe kProbes[] = {
    {"userfaultfd", false,
     "a process waits for all of its memory when it moves, instead of the part that it needs",
     userfaultfd_cure, probe_userfaultfd},
    {"PAGEMAP_SCAN with asynchronous protection", false,
     "changed pages are found by soft-dirty marks, or all are sent",
     [] { return std::string("Linux 6.7 or newer with CONFIG_PTE_MARKER_UFFD_WP"); }, probe_pagemap_scan},
    {"soft-dirty marks", false, "before Linux 6.7, all pages travel on every move",
     [] { return std::string("a kernel with CONFIG_MEM_SOFT_DIRTY, or PAGEMAP_SCAN"); }, probe_soft_dirty},
};

}  // namespace

std::span<const Probe> memory_probes() { return kProbes; }

}  // namespace mosix
