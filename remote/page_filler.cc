#include "remote/page_filler.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "libmosix/common/features.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

constexpr uint64_t kPage = 4096;
/// Below this an area is not worth the registration.
constexpr uint64_t kLargeAreaBytes = 1 << 20;

bool is_large(const Area& area) {
  return (area.kind == AreaKind::kAnonymous || area.kind == AreaKind::kStack) && area.end > area.start &&
         area.end - area.start >= kLargeAreaBytes;
}

}  // namespace

Result<std::shared_ptr<PageFiller>> PageFiller::open(int outer_pid, UniqueFd userfaultfd,
                                                     const std::vector<Area>& areas, SharedRanges shared) {
  TRY(ProcessMemory memory, ProcessMemory::open(outer_pid));
  std::shared_ptr<PageFiller> filler(
      new PageFiller(std::move(memory), std::move(userfaultfd), std::move(shared)));
  if (!filler->userfaultfd_ || !feature_enabled("userfaultfd") ||
      std::none_of(areas.begin(), areas.end(), is_large))
    return filler;
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(filler->userfaultfd_.get(), UFFDIO_API, &api) != 0) return filler;
  for (const Area& area : areas) {
    if (!is_large(area)) continue;
    uffdio_register range{};
    range.range = {area.start, area.end - area.start};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (ioctl(filler->userfaultfd_.get(), UFFDIO_REGISTER, &range) == 0)
      filler->registered_.push_back({area.start, area.end});
    else
      log_debug("userfaultfd: an area is not registered: " + std::string(strerror(errno)));
  }
  std::sort(filler->registered_.begin(), filler->registered_.end(),
            [](const Range& a, const Range& b) { return a.start < b.start; });
  return filler;
}

/// A run may reach over the end of an area into the next.
Status PageFiller::put(uint64_t address, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    bool is_shared = false;
    size_t part = shared_.part(address, bytes, &is_shared);
    TRY_VOID(is_shared ? shared_.put(address, data, part) : put_private(address, data, part));
    address += part, data += part, bytes -= part;
  }
  return {};
}

Status PageFiller::put_private(uint64_t address, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    auto next = std::upper_bound(registered_.begin(), registered_.end(), address,
                                 [](uint64_t at, const Range& range) { return at < range.end; });
    bool inside = next != registered_.end() && next->start <= address;
    uint64_t limit = next == registered_.end() ? ~0ull : inside ? next->end : next->start;
    size_t part = std::min<uint64_t>(bytes, limit - address);
    TRY_VOID(inside ? copy(address, data, part) : memory_.write(address, data, part));
    address += part, data += part, bytes -= part;
  }
  return {};
}

Status PageFiller::copy(uint64_t address, const uint8_t* data, size_t bytes) {
  while (bytes > 0) {
    uffdio_copy order{};
    order.dst = address;
    order.src = reinterpret_cast<uint64_t>(data);
    order.len = bytes;
    size_t done = 0;
    if (ioctl(userfaultfd_.get(), UFFDIO_COPY, &order) == 0) {
      done = bytes;
    } else {
      int error = errno;
      // Stopped half way, it says EAGAIN and how far it came; at once, why.
      if (error == EAGAIN && order.copy > 0) {
        done = static_cast<size_t>(order.copy);
      } else if (error == EEXIST) {
        done =
            kPage;  // the kernel has put something of its own there (rseq): the page is there to be written
        TRY_VOID(memory_.write(address, data, done));
      } else if (error != EAGAIN && error != EINTR) {
        errno = error;
        return fail_errno("put pages into the remote");
      }
    }
    address += done, data += done, bytes -= done;
  }
  return {};
}

}  // namespace mosix
