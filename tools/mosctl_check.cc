#include "tools/mosctl_check.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "cluster/settings.h"
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

/// What mosixd says of itself; nothing where none runs.
struct Daemon {
  ProbeResult result;
  std::optional<Json> status;
};

Daemon ask_status() {
  auto status = ask_daemon({{"op", "status"}}, kAskLimitMs);
  if (!status) return {lacks_because(status.error().error.message()), {}};
  return {
      works("version " + field_text(*status, "version", "?") + ", node " + field_text(*status, "node", "?")),
      *status};
}

Finding check_daemon(const Daemon& daemon) {
  return plain_finding("mosixd", true, daemon.result, "nothing moves, to or from this node",
                       "start it: systemctl start mosixd, or `mosixd` as an ordinary user");
}

Finding check_settings(const Daemon& daemon, const Result<Settings>& settings) {
  bool not_ours = !settings && settings.error().code == EACCES && daemon.status;
  ProbeResult result = not_ours    ? works("mosixd has read them")
                       : !settings ? lacks_because(settings.error().message())
                                   : works(settings->file.empty() ? "no file: defaults" : settings->file);
  return plain_finding("settings", true, result, "mosixd does not start, or not again",
                       "correct that line as mosix.toml(5) says, and try `mosixd --check-config`");
}

/// The file that mosixd uses; without a mosixd, the one that it would use.
std::string key_path(const Daemon& daemon, const Result<Settings>& settings) {
  std::string used = daemon.status ? field_text(*daemon.status, "key_file") : "";
  if (!used.empty()) return used;
  return settings ? settings->key_file : etc_dir() + "/cluster.key";
}

Finding check_key(const std::string& path) {
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

/// What to do about a node that mosixd does not reach.
std::string node_cure(int64_t code, int64_t port) {
  switch (code) {
    case ECONNREFUSED:
      return fmt::format(
          "start mosixd there (systemctl start mosixd); if it runs, port {} in its mosix.toml is not "
          "ours, or a firewall rejects TCP port {}",
          port, port);
    case EACCES:
      return "copy this node's cluster key to it, or its key to here, and start mosixd again: the keys "
             "differ";
    case EPROTO:
      return fmt::format(
          "what answers at port {} there is no mosixd of this version: install the same on every node", port);
    default:
      return fmt::format(
          "is it up, with that address? Then let TCP port {} and the ports that it opens for channels "
          "through its firewall (nft, ufw, firewalld) from this node, and start mosixd there",
          port);
  }
}

/// Each node of the map, as mosixd reaches it.
std::vector<Finding> check_nodes(const Daemon& daemon) {
  std::vector<Finding> findings;
  if (!daemon.status) return findings;
  auto nodes = ask_daemon({{"op", "nodes"}}, kAskLimitMs);
  if (!nodes) return findings;
  int64_t port = field_integer(*daemon.status, "port", kDefaultPort);
  for (const Json& node : field_array(*nodes, "nodes")) {
    if (!node.is_object()) continue;
    std::string address = field_text(node, "address", "?");
    std::string error = field_text(node, "error", "no answer");
    ProbeResult result = field_flag(node, "up") ? works(address) : lacks_because(address + ": " + error);
    findings.push_back(plain_finding("node " + field_text(node, "name", "?"), false, result,
                                     "nothing can move there", node_cure(field_integer(node, "code"), port)));
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
    Daemon daemon = ask_status();
    std::string file = daemon.status ? field_text(*daemon.status, "settings") : "";
    Result<Settings> settings = load_settings(file);
    findings.push_back(check_daemon(daemon));
    findings.push_back(check_settings(daemon, settings));
    findings.push_back(check_key(key_path(daemon, settings)));
    for (Finding& node : check_nodes(daemon)) findings.push_back(std::move(node));
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
