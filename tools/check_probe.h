// `mosctl check`, the frame: what a probe is, and how one runs without harm to the tool.
//
// A probe uses the feature instead of asking for versions: distributions backport, containers forbid, and
// sysctls restrict, so that only the attempt tells. Each runs in a child of its own, because probes unmap the
// vDSO, enter namespaces and install filters; as root a second child repeats it as an ordinary user.
#pragma once

#include <functional>
#include <span>
#include <string>

namespace mosix {

struct ProbeResult {
  bool ok = false;
  std::string detail;  ///< what failed and how, or a figure worth knowing
};

struct Probe {
  const char* name;
  /// Without it guests cannot be sent or hosted at all; otherwise there is a slower way.
  bool essential;
  const char* lost;
  std::function<std::string()> cure;
  std::function<ProbeResult()> run;
};

ProbeResult works(std::string detail = "");
/// With errno as it stands.
ProbeResult lacks(const std::string& what);
ProbeResult lacks_because(std::string detail);

/// Runs `body` in a forked child and returns what it returned there. A child that dies or takes longer than
/// 30 s is a lack with that detail; it and its own children are ended.
ProbeResult in_child(const std::function<ProbeResult()>& body);
/// The same after becoming uid and gid 65534 without groups. Root only.
ProbeResult in_child_as_nobody(const std::function<ProbeResult()>& body);

/// Runs `act` with the pid of a process that is neither ancestor nor descendant, as a custodian's target is.
/// With `permits` it has called PR_SET_PTRACER as libmosix.so does. The target waits until it is killed.
ProbeResult towards_sibling(bool permits, const std::function<ProbeResult(int pid)>& act);

/// First line of a small file, "" if it cannot be read.
std::string first_line(const std::string& path);
/// False with errno if not everything could be written by one write.
bool write_file(const std::string& path, const std::string& text);

/// In probes_process.cc, probes_sandbox.cc, probes_memory.cc and probes_ring.cc.
std::span<const Probe> process_probes();
std::span<const Probe> sandbox_probes();
std::span<const Probe> memory_probes();
std::span<const Probe> ring_probes();

}  // namespace mosix
