// What the custodian asks about all processes of this machine, as far as they can be looked into: whose descriptors and mappings lead where.
#pragma once

#include <set>
#include <vector>

#include "deputy/file_bindings.h"
#include "libmosix/common/messages.h"
#include "libmosix/process/shared_memory.h"

namespace mosix {

/// A child of `ancestor`, or of one of its children.
bool is_descendant(int pid, int ancestor);
/// Who has mappings of any of this memory, except `pid`. A deputy's are of before it moved.
std::vector<int> sharers_at_home(int pid, const std::set<SharedKey>& memory);
/// Those of them that anybody has mapped.
std::set<SharedKey> mapped_at_home(const std::set<SharedKey>& memory);
/// Of all but this process. `*all_seen`: there is no process that we may not look into.
std::vector<BoundDescriptor> descriptors_of(const SharedKey& key, bool* all_seen = nullptr);
/// Descriptors of the process that lead into somebody's folder in /proc.
std::vector<int32_t> proc_files_of(int pid);
/// Of shared mappings in `maps`, those of the process, notes which are `nameless`: of a memfd, or of a file of /dev/shm that
/// has no name any more, of which no process has a descriptor. Such memory is as anonymous as any. What is bound to a node
/// is not.
void note_nameless(int pid, std::vector<MapEntry>& maps, FileBindings& files);

}  // namespace mosix
