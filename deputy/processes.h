// The processes of this machine, as far as they can be looked into: whose descriptors and mappings lead where.
#pragma once

#include <set>
#include <vector>

#include "libmosix/common/messages.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

/// A child of `ancestor`, or of one of its children.
bool is_descendant(int pid, int ancestor);
/// Who has mappings of any of this memory, except `pid`. A deputy's are of before it moved.
std::vector<int> sharers_at_home(int pid, const std::set<SharedKey>& memory);
/// Those of them that anybody has mapped.
std::set<SharedKey> mapped_at_home(const std::set<SharedKey>& memory);
/// Of all but this process.
std::vector<BoundDescriptor> descriptors_of(const SharedKey& key);

}  // namespace mosix
