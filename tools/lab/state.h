// The labs of this machine, as files: one folder each below lab_root(), with `lock` (held by the keeper for
// as long as it lives), `state.json`, `root` (mount point) and the nodes' logs. A folder whose lock is free
// belongs to a lab that died; whoever comes next sweeps it.
#pragma once

#include <string>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"
#include "tools/lab/lab_spec.h"

namespace mosix::lab {

struct NodeState {
  std::string name, address, log;
  std::string daemon = "starting";  ///< starting, up, "exited 3", "killed by signal 9", gone (the node is)
  std::string cpu_group;            ///< cgroup folder, "" without --cpus
  pid_t init = 0;                   ///< pid 1 of the node, as seen from outside
};

struct LabState {
  LabSpec spec;
  pid_t keeper = 0;
  std::vector<NodeState> nodes;
};

/// $MOSIXLAB_DIR, or /run/mosixlab for root, or $XDG_RUNTIME_DIR/mosixlab, or /tmp/mosixlab-UID.
std::string lab_root();

/// Makes the folder of a new lab and takes its lock. EEXIST: a lab of this name is there.
Result<UniqueFd> claim_lab(LabSpec& spec);
/// In the keeper: replaces state.json in one step.
Status save_state(const LabState& state);
/// One running lab; without a name `lab`, or the only one there is. ENOENT says what there is instead.
Result<LabState> find_lab(const std::string& name);
std::vector<LabState> all_labs();
/// Removes what a lab that has no keeper any more left behind: cgroups and its folder.
Status remove_lab_files(const std::string& state_dir);
/// remove_lab_files() for all that are dead.
void sweep_dead_labs();

/// The table of `mosixlab status`, and the same as JSON.
std::string labs_as_table(const std::vector<LabState>& labs);
std::string labs_as_json(const std::vector<LabState>& labs);

}  // namespace mosix::lab
