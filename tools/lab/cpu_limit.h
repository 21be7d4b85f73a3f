// --cpus: a cgroup for each node, in version 1's cpu hierarchy or in version 2, whichever the machine has the
// cpu controller in. The period is 5 ms (the kernel's default of 100 ms would stop a node for 75 ms at a
// stretch and drown every latency figure); quotas below the kernel's minimum of 1 ms lengthen it.
#pragma once

#include "libmosix/common/result.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

/// Makes node k's group and sets the limit. Returns its folder, which the caller removes with
/// remove_cpu_group() when the node's processes have ended.
Result<std::string> make_cpu_group(const LabSpec& spec, int k);
/// Puts the calling process into a group; "" does nothing.
Status join_cpu_group(const std::string& folder);
/// Waits a moment where the kernel still holds the group busy. Missing is not an error.
Status remove_cpu_group(const std::string& folder);

}  // namespace mosix::lab
