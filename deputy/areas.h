// The mappings of a process as areas of a message. Home side; the process stands still.
#pragma once

#include <map>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/memory.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

struct AreaList {
  std::vector<Area> areas;
  std::vector<bool>
      whole;  ///< treated as anonymous although a file lies behind: every readable page must travel
};

/// All areas that belong to the guest: without the window and [vsyscall]; the vdso and its data as one.
/// `bound`: the files that are bound to where it goes, as Area::file names them.
AreaList describe_areas(const ProcessMemory& memory, const std::vector<MapEntry>& maps, uint64_t window,
                        const std::map<SharedKey, FileKey>& bound);

/// [vvar], [vvar_vclock], [vdso].
bool is_vdso_part(const MapEntry& entry);

}  // namespace mosix
