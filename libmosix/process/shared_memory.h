// Anonymous memory that relatives share: mmap(MAP_SHARED | MAP_ANONYMOUS) and shared mappings of /dev/zero, which the
// kernel keeps in files without a name, and those of files in memory that have lost theirs, and whose descriptors are
// closed. Processes that share such memory move together (deputy/move_group.h), and
// where they arrive a memfd takes the place of each of those files. Both sides of a move.
//
// What of it has contents cannot be told from one process's page tables: a page that only a child has touched, which
// has ended since, is in nobody's. mincore(2) tells, made by the stopped process itself, but not of what is swapped
// out; where there is any of that, all of the mapping is taken.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/pagemap.h"

namespace mosix {

bool is_shared_anonymous(const MapEntry& entry);
/// A shared mapping, writable now, of something that has a path: at home. Whether it can be bound is another question
/// (deputy/file_bindings.h).
bool is_shared_file(const MapEntry& entry);
/// The same away, where its contents are in a memfd of ours.
bool is_bound_memory(const MapEntry& entry);
/// A memfd of that kind. It does not go over an exec.
Result<UniqueFd> make_bound_memory(uint64_t bytes);

/// Device and inode, by which processes of one machine can tell that it is the same memory.
using SharedKey = std::pair<uint64_t, uint64_t>;
std::set<SharedKey> shared_memory_in(const std::vector<MapEntry>& maps);
bool maps_any_of(const std::vector<MapEntry>& maps, const std::set<SharedKey>& memory);

/// An area of a ProcessState for such a mapping, `file.size`: how far into the memory it reaches. A mapping that has grown
/// does not make the memory grow: what lies behind it cannot be read. The process stands still.
Area shared_area(const MapEntry& entry, const ProcessMemory& memory);
/// Of an area that comes from elsewhere.
Status check_shared_area(const Area& area);
inline SharedKey key_of(const Area& area) { return {area.file.device, area.file.inode}; }

/// Something of [start, end) in the process is swapped out.
Result<bool> has_swapped_pages(int pid, uint64_t start, uint64_t end);
/// What mincore has said of `pages` pages from `start` on, one byte each.
void add_resident(uint64_t start, const uint8_t* in_core, size_t pages, std::vector<PageSpan>& spans);

/// Which pages of shared memory some process of a group carries already: the others need not. Any thread.
class SharedClaims {
 public:
  /// The parts of `span`, a piece of `area`, that nobody had claimed; they are claimed now.
  std::vector<PageSpan> claim(const Area& area, const PageSpan& span);
  /// The same of a whole bound file.
  bool claim_file(const SharedKey& file);

 private:
  std::mutex mutex_;
  std::map<SharedKey, std::vector<PageSpan>> taken_;  ///< by offset, sorted and merged
  std::set<SharedKey> files_;
};

/// The memory of one group where it arrives, each piece made by the first who has a mapping of it. Any thread.
class SharedPool {
 public:
  /// A memfd that reaches at least as far as the area does; it belongs to the pool.
  Result<int> open(const Area& area);

 private:
  struct Piece {
    UniqueFd fd;
    uint64_t bytes = 0;
  };
  std::mutex mutex_;
  std::map<SharedKey, Piece> pieces_;
};

/// Where in a process shared memory lies, for whoever brings its pages: they are written to the memory itself, which a
/// mapping may forbid.
class SharedRanges {
 public:
  explicit SharedRanges(std::shared_ptr<SharedPool> pool = nullptr) : pool_(std::move(pool)) {}
  void add(const Area& area, int fd) { ranges_[area.end] = {area.start, area.offset, fd}; }
  /// How many bytes from `address` on lie in one piece, or (`inside` false) in none.
  size_t part(uint64_t address, size_t bytes, bool* inside) const;
  /// A part that lies inside.
  Status put(uint64_t address, const uint8_t* data, size_t bytes) const;

 private:
  struct Range {
    uint64_t start = 0, offset = 0;
    int fd = -1;
  };
  std::shared_ptr<SharedPool> pool_;
  std::map<uint64_t, Range> ranges_;  ///< by end
};

}  // namespace mosix
