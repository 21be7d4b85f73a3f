// What must change in the address space at home so that it looks as the guest's did when it left the away
// node. Ranges are compared, not mappings: the two kernels merge and split them differently. Pure
// computation.
#pragma once

#include <cstdint>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/process/maps.h"

namespace mosix {

struct LayoutStep {
  /// kMapShared has an area's index, not merged with its neighbours.
  enum class Kind { kUnmap, kMapAnonymous, kMapStack, kMapShared, kProtect };
  Kind kind = Kind::kUnmap;
  uint64_t start = 0;
  uint64_t end = 0;
  uint32_t protection = 0;
  uint32_t area = 0;  ///< index, of kMapShared
  bool operator==(const LayoutStep&) const = default;
};

struct LayoutPlan {
  std::vector<LayoutStep> steps;
  /// Indices of away areas that home can no longer fill from the file: their whole contents must be sent.
  std::vector<uint32_t> whole_areas;
};

/// `ring_places`: those are reserved at home, and not the guest's. EBADMSG: the areas make no sense or touch the
/// window or those. EXDEV: the vdso lies elsewhere.
Result<LayoutPlan> plan_layout(const std::vector<MapEntry>& home, uint64_t window, bool ring_places,
                               const std::vector<Area>& away);

}  // namespace mosix
