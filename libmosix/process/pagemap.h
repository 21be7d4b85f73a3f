// Which pages of a process hold data of its own: pages that a fresh mapping of the same file or of nothing
// would not have. These are what a move must carry. Asked by PAGEMAP_SCAN (Linux 6.7, skips holes without
// looking at each page) or by reading /proc/PID/pagemap (Linux 6.1; 8 bytes per page). Unprivileged for own
// processes; page frame numbers, which need privilege, are not used.
#pragma once

#include <cstdint>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

inline constexpr uint64_t kPageBytes = 4096;

/// A run of pages.
struct PageSpan {
  uint64_t address = 0;
  uint64_t pages = 0;
  uint64_t bytes() const { return pages * kPageBytes; }
  bool operator==(const PageSpan&) const = default;
};

/// Sorted and merged.
std::vector<PageSpan> merge_spans(std::vector<PageSpan> spans);
/// What of `spans` is not in `taken`; both sorted and merged.
std::vector<PageSpan> subtract_spans(const std::vector<PageSpan>& spans, const std::vector<PageSpan>& taken);

/// The pages in [start, end) that are present or swapped out and anonymous: all written pages of private
/// mappings. Ascending, neighbours merged. Pages of shared mappings are never among them: ask
/// populated_pages. May contain pages of zeroes (a read fault maps the zero page on kernels before 6.7).
Result<std::vector<PageSpan>> private_pages(int pid, uint64_t start, uint64_t end);
/// The pages in [start, end) that are present or swapped out, whatever backs them.
Result<std::vector<PageSpan>> populated_pages(int pid, uint64_t start, uint64_t end);

/// /proc/PID/pagemap held open, for a caller with many ranges.
class Pagemap {
 public:
  static Result<Pagemap> open(int pid);
  Result<std::vector<PageSpan>> private_pages(uint64_t start, uint64_t end) const;
  Result<std::vector<PageSpan>> populated_pages(uint64_t start, uint64_t end) const;

 private:
  enum class Which { kPrivate, kPopulated };
  explicit Pagemap(UniqueFd file) : file_(std::move(file)) {}
  Result<std::vector<PageSpan>> find(uint64_t start, uint64_t end, Which which) const;
  Status scan(uint64_t start, uint64_t end, Which which, std::vector<PageSpan>& spans) const;
  Status read_entries(uint64_t start, uint64_t end, Which which, std::vector<PageSpan>& spans) const;
  UniqueFd file_;
};

}  // namespace mosix
