// What a program has told the kernel about a mapping by madvise, where that outlasts the call and changes what the
// program can see, or what its memory costs: it has to be told again where the mapping is made anew.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/common/result.h"
#include "libmosix/process/maps.h"

namespace mosix {

/// Advice bits (see Area::advice) of a VmFlags line in /proc/PID/smaps.
uint32_t advice_of(const MapFlags& flags);

/// Notes in each area what smaps says of its first page: areas that were read from maps, and are not of one kind only,
/// are areas of smaps too. The process stands still. Costs what read_map_flags does.
Status note_advice(int pid, std::vector<Area>& areas);

/// One madvise(2).
struct AdviceStep {
  uint64_t start = 0;
  uint64_t end = 0;
  int advice = 0;  ///< MADV_*
  bool operator==(const AdviceStep&) const = default;
};

/// What to tell the kernel of [start, end), to lead it from one set of advice bits to another.
void add_advice_steps(uint64_t start, uint64_t end, uint32_t from, uint32_t to,
                      std::vector<AdviceStep>& steps);

/// What has to be told of mappings that are there, so that all areas are advised as they say.
std::vector<AdviceStep> plan_advice(const std::vector<Area>& areas, const std::vector<MapFlags>& now);

/// One mlock2(2) or munlock(2).
struct LockStep {
  uint64_t start = 0;
  uint64_t end = 0;
  uint32_t locked = 0;  ///< kLocked, kLockedOnFault, or 0: munlock
  bool operator==(const LockStep&) const = default;
};

/// What has to be locked and unlocked of mappings that are there, so that all areas are as they say: what is unlocked
/// comes first, for the limit's sake.
std::vector<LockStep> plan_locks(const std::vector<Area>& areas, const std::vector<MapFlags>& now);

}  // namespace mosix
