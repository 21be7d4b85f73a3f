// The mappings of a process as areas of a message. Home side; the process stands still.
#pragma once

#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"

namespace mosix {

struct AreaList {
  std::vector<Area> areas;
  std::vector<bool>
      whole;  ///< treated as anonymous although a file lies behind: every readable page must travel
};

/// All areas that belong to the guest: without the window and [vsyscall]; the vdso and its data as one.
AreaList describe_areas(const ProcessMemory& memory, const std::vector<MapEntry>& maps, uint64_t window);

/// [vvar], [vvar_vclock], [vdso].
bool is_vdso_part(const MapEntry& entry);

}  // namespace mosix
