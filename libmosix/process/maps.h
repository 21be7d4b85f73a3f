// The mappings of a process as /proc/PID/maps tells them. Used by the custodian (which ranges belong to a
// guest) and by the supervisor (what to send back). Reading is not atomic: stop the process first if the
// answer must hold.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

/// One line of /proc/PID/maps.
struct MapEntry {
  uint64_t start = 0;
  uint64_t end = 0;         ///< exclusive
  uint32_t protection = 0;  ///< PROT_READ | PROT_WRITE | PROT_EXEC
  bool shared = false;
  uint64_t offset = 0;  ///< bytes into the file
  uint64_t device =
      0;  ///< makedev(major, minor) as the kernel prints it: st_dev, except on btrfs and overlayfs
  uint64_t inode = 0;
  std::string path;  ///< file path, or a name in brackets such as "[stack]", or empty for anonymous memory
  bool deleted = false;  ///< the file is unlinked; " (deleted)" is already taken off the path
  /// Nothing but mappings leads to what lies behind it. Not told by maps: deputy/processes.h finds it out.
  bool nameless = false;

  uint64_t bytes() const { return end - start; }
  bool contains(uint64_t address) const { return address >= start && address < end; }
  /// Backed by a file or other inode (memfd, SysV segment, shared anonymous memory are inodes too).
  bool has_inode() const { return inode != 0; }
  /// "[vdso]", "[vvar]", "[vvar_vclock]", "[uprobes]", "[vsyscall]": the kernel's own. [heap], [stack] and
  /// names given by PR_SET_VMA_ANON_NAME ("[anon:...]", "[anon_shmem:...]") are the program's.
  bool is_special() const;
  /// The kernel's special mappings that a rebuild knows how to make: [vdso], [vvar], [vvar_vclock],
  /// [vsyscall].
  bool is_known_special() const;
};

/// All mappings, ascending. Empty for a kernel thread or a zombie.
Result<std::vector<MapEntry>> read_maps(int pid);

/// The VmFlags of one mapping in /proc/PID/smaps: two letters and a blank each, "rd wr mr mw me ac ".
struct MapFlags {
  uint64_t start = 0;
  uint64_t end = 0;
  std::string flags;
  uint32_t key = 0;  ///< protection key, where the processor has such
  /// has("gd") grows down, has("lo") mlocked, has("dc") MADV_DONTFORK, has("wf") MADV_WIPEONFORK, has("ht")
  /// huge TLB pages, has("dd") MADV_DONTDUMP, has("um"/"uw") userfaultfd, has("mg") mergeable, has("hg"/"nh")
  /// THP advice.
  bool has(std::string_view flag) const;
};
/// Costs a walk over all pages of the process (about 1 ms per 100 MB); read_maps does not.
Result<std::vector<MapFlags>> read_map_flags(int pid);

/// Parses the text of a maps file; read_maps in a form that tests and post-mortem tools can use.
Result<std::vector<MapEntry>> parse_maps(std::string_view text);

}  // namespace mosix
