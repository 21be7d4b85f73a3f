#include "tools/mosctl_check.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "libmosix/common/limits.h"
#include "libmosix/common/membership.h"
#include "libmosix/common/paths.h"
#include "tools/check_probe.h"
#include "tools/tool_common.h"

namespace mosix {
namespace {

/// One line of the report. Features are tried as the caller, and by root also as an ordinary user.
struct Finding {
  std::string name;
  bool essential = false;
  std::optional<ProbeResult> as_root;
  std::optional<ProbeResult> as_user;
  std::string lost;
  std::string cure;

  bool ok() const { return (!as_root || as_root->ok) && (!as_user || as_user->ok); }
};

std::vector<Finding> probe_kernel() {
  std::vector<Finding> findings;
  // Root of a user namespace (a container) may have nobody else to become.
  bool can_be_user = geteuid() == 0 && in_child_as_nobody([] { return works(); }).ok;
  for (auto probes : {process_probes(), sandbox_probes(), memory_probes(), ring_probes()}) {
    for (const Probe& probe : probes) {
      Finding finding{probe.name, probe.essential, {}, {}, probe.lost, ""};
      if (geteuid() == 0) {
        finding.as_root = in_child(probe.run);
        if (can_be_user) finding.as_user = in_child_as_nobody(probe.run);
      } else {
        finding.as_user = in_child(probe.run);
      }
      if (!finding.ok()) finding.cure = probe.cure();
      findings.push_back(std::move(finding));
    }
  }
  return findings;
}

/// A finding that does not depend on who asks: it stands in the caller's column.
Finding plain_finding(std::string name, bool essential, ProbeResult result, std::string lost,
                      std::string cure) {
  Finding finding{std::move(name), essential, {}, {}, std::move(lost), std::move(cure)};
  (geteuid() == 0 ? finding.as_root : finding.as_user) = std::move(result);
  return finding;
}

Finding check_daemon() {
  auto status = ask_daemon({{"op", "status"}}, kAskLimitMs);
  ProbeResult result = status ? works("version " + field_text(*status, "version", "?") + ", node " +
                                      field_text(*status, "node", "?"))
                              : lacks_because(status.error().error.message());
  return plain_finding("mosixd", true, result, "nothing moves, to or from this node",
                       "start it: systemctl start mosixd, or `mosixd` as an ordinary user");
}

Finding check_key() {
  std::string path = etc_dir() + "/cluster.key";
  std::string lost = "nodes cannot prove that they belong together";
  auto key = load_cluster_key(path);
  if (key) return plain_finding("cluster key", true, works(path), lost, "");
  struct stat info {};
  if (key.error().code == EACCES && stat(path.c_str(), &info) == 0 && info.st_uid != geteuid() &&
      (info.st_mode & 077) == 0)
    return plain_finding("cluster key", true, works(path + " is its owner's alone, as it should be"), lost,
                         "");
  std::string cure = key.error().code == EACCES
                         ? fmt::format("chmod 600 {}", path)
                         : fmt::format("(umask 077; mosctl key > {}), the same on every node", path);
  return plain_finding("cluster key", true, lacks_because(key.error().message()), lost, cure);
}

/// Each node of the map, as mosixd reaches it.
std::vector<Finding> check_nodes() {
  std::vector<Finding> findings;
  auto nodes = ask_daemon({{"op", "nodes"}}, kAskLimitMs);
  if (!nodes) return findings;
  for (const Json& node : field_array(*nodes, "nodes")) {
    if (!node.is_object()) continue;
    std::string address = field_text(node, "address", "?");
    std::string error = field_text(node, "error", "no answer");
    ProbeResult result = field_flag(node, "up") ? works(address) : lacks_because(address + ": " + error);
    findings.push_back(plain_finding(
        "node " + field_text(node, "name", "?"), false, result, "nothing can move there",
        fmt::format(
            "start mosixd there with the same key, and let TCP port {} and the ports that it opens for "
            "channels through its firewall (nft, ufw, firewalld) from this node",
            kDefaultPort)));
  }
  return findings;
}

std::string verdict(const std::optional<ProbeResult>& result) {
  return !result ? "-" : result->ok ? "ok" : "LACKING";
}

Json result_json(const std::optional<ProbeResult>& result) {
  if (!result) return nullptr;
  return Json{{"ok", result->ok}, {"detail", result->detail}};
}

Json finding_json(const Finding& finding) {
  Json line{{"feature", finding.name},
            {"essential", finding.essential},
            {"ok", finding.ok()},
            {"root", result_json(finding.as_root)},
            {"user", result_json(finding.as_user)}};
  if (!finding.ok()) line["lost"] = finding.lost, line["cure"] = finding.cure;
  return line;
}

void print_details(const Finding& finding) {
  auto detail = [](const char* who, const std::optional<ProbeResult>& result) {
    if (result && !result->ok) fmt::print("  {} {}\n", who, printable(result->detail));
  };
  fmt::print("{}{}\n", printable(finding.name), finding.essential ? " (essential)" : "");
  detail("as root:", finding.as_root);
  detail("as user:", finding.as_user);
  fmt::print("  lost:    {}\n  cure:    {}\n", finding.lost, finding.cure);
}

void print_findings(const std::vector<Finding>& findings) {
  std::vector<std::vector<std::string>> rows;
  for (const Finding& finding : findings) {
    const auto& shown = finding.as_user ? finding.as_user : finding.as_root;
    std::string note = finding.ok() ? shown->detail : finding.essential ? "essential" : "";
    rows.push_back(
        {printable(finding.name), verdict(finding.as_root), verdict(finding.as_user), printable(note)});
  }
  print_table({"FEATURE", "AS ROOT", "AS USER", "NOTE"}, rows);
  bool first = true;
  for (const Finding& finding : findings) {
    if (finding.ok()) continue;
    if (first) fmt::print("\n");
    first = false;
    print_details(finding);
  }
}

}  // namespace

int check_machine(bool json, bool kernel_only) {
  std::vector<Finding> findings = probe_kernel();
  if (!kernel_only) {
    findings.push_back(check_daemon());
    findings.push_back(check_key());
    for (Finding& node : check_nodes()) findings.push_back(std::move(node));
  }
  bool complete = true;
  for (const Finding& finding : findings) complete &= finding.ok() || !finding.essential;
  utsname kernel{};
  uname(&kernel);
  if (json) {
    Json lines = Json::array();
    for (const Finding& finding : findings) lines.push_back(finding_json(finding));
    fmt::print("{}\n",
               json_text({{"kernel", kernel.release}, {"complete", complete}, {"findings", lines}}, 2));
  } else {
    fmt::print("Linux {}\n", kernel.release);
    print_findings(findings);
    fmt::print("\n{}\n", complete ? "Everything essential is there." : "Something essential is lacking.");
  }
  return complete ? kExitDone : kExitNotDone;
}

}  // namespace mosix
