#include "tools/lab/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "tools/lab/cpu_limit.h"
#include "tools/lab/process.h"

namespace mosix::lab {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

/// Held while a folder is claimed or swept, so that nobody sweeps what another has just made. The last lab to
/// go takes the root folder with it, hence the second look at what was locked.
UniqueFd lock_root(const std::string& root) {
  for (;;) {
    UniqueFd folder(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || flock(folder.get(), LOCK_EX) != 0) return UniqueFd();
    struct stat locked {
    }, there{};
    if (fstat(folder.get(), &locked) != 0) return UniqueFd();
    if (stat(root.c_str(), &there) != 0) return UniqueFd();
    if (locked.st_ino == there.st_ino && locked.st_dev == there.st_dev) return folder;
  }
}

/// The keeper's lock is exclusive; a look takes it shared, so that two who look do not mislead each other.
bool is_alive(const std::string& state_dir) {
  UniqueFd lock(open((state_dir + "/lock").c_str(), O_RDONLY | O_CLOEXEC));
  return lock && flock(lock.get(), LOCK_SH | LOCK_NB) != 0;
}

/// Cgroups first: their names stand in the folder.
Status remove_files(const std::string& state_dir);

json to_json(const LabState& state) {
  const LabSpec& spec = state.spec;
  json nodes = json::array();
  for (const NodeState& node : state.nodes)
    nodes.push_back({{"name", node.name},
                     {"address", node.address},
                     {"pid", node.init},
                     {"mosixd", node.daemon},
                     {"log", node.log},
                     {"cpu_group", node.cpu_group}});
  return {{"name", spec.name},
          {"keeper", state.keeper},
          {"uid", spec.uid},
          {"gid", spec.gid},
          {"rate", spec.rate},
          {"delay", spec.delay},
          {"cpus", spec.cpus},
          {"stays", !spec.ephemeral},
          {"user_namespace", spec.user_namespace},
          {"daemon", spec.daemon},
          {"nodes", nodes}};
}

Result<LabState> from_json(const std::string& text, const std::string& state_dir) {
  json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return fail(EBADMSG, "read " + state_dir + "/state.json");
  LabState state;
  LabSpec& spec = state.spec;
  spec.state_dir = state_dir;
  spec.name = object.value("name", "");
  spec.uid = object.value("uid", 0U);
  spec.gid = object.value("gid", 0U);
  spec.rate = object.value("rate", "");
  spec.delay = object.value("delay", "");
  spec.cpus = object.value("cpus", 0.0);
  spec.ephemeral = !object.value("stays", false);
  spec.user_namespace = object.value("user_namespace", false);
  spec.daemon = object.value("daemon", "");
  state.keeper = object.value("keeper", 0);
  for (const json& entry : object.value("nodes", json::array()))
    state.nodes.push_back({entry.value("name", ""), entry.value("address", ""), entry.value("log", ""),
                           entry.value("mosixd", ""), entry.value("cpu_group", ""), entry.value("pid", 0)});
  spec.node_count = static_cast<int>(state.nodes.size());
  return state;
}

Result<LabState> load_state(const std::string& state_dir) {
  TRY(std::string text, read_file(state_dir + "/state.json"));
  return from_json(text, state_dir);
}

std::vector<std::string> lab_folders() {
  std::vector<std::string> folders;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(lab_root(), ignored))
    if (entry.is_directory(ignored)) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

Status remove_files(const std::string& state_dir) {
  if (Result<LabState> state = load_state(state_dir))
    for (const NodeState& node : state->nodes) TRY_VOID(remove_cpu_group(node.cpu_group));
  std::error_code error;
  fs::remove_all(state_dir, error);
  return error ? Status(fail(error.value(), "remove " + state_dir)) : Status();
}

}  // namespace

std::string lab_root() {
  if (const char* dir = getenv("MOSIXLAB_DIR"); dir != nullptr && *dir != 0) return fs::absolute(dir);
  if (geteuid() == 0) return "/run/mosixlab";
  if (const char* dir = getenv("XDG_RUNTIME_DIR"); dir != nullptr && *dir != 0)
    return std::string(dir) + "/mosixlab";
  return "/tmp/mosixlab-" + std::to_string(geteuid());
}

Result<UniqueFd> claim_lab(LabSpec& spec) {
  UniqueFd root_lock;
  while (!root_lock) {
    TRY_VOID(make_folders(lab_root()));
    root_lock = lock_root(lab_root());
  }
  spec.state_dir = lab_root() + "/" + spec.name;
  if (is_alive(spec.state_dir))
    return fail(0, "a lab called " + spec.name + " is there already; `mosixlab down --name " + spec.name +
                       "` ends it, `--name` gives this one another name");
  TRY_VOID(remove_files(spec.state_dir));
  TRY_VOID(make_folders(spec.state_dir + "/root"));
  if (spec.log_dir.empty()) spec.log_dir = spec.state_dir;
  UniqueFd lock(open((spec.state_dir + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock || flock(lock.get(), LOCK_EX) != 0) return fail_errno("lock " + spec.state_dir);
  return lock;
}

Status save_state(const LabState& state) {
  std::string path = state.spec.state_dir + "/state.json";
  TRY_VOID(write_file(path + ".new", to_json(state).dump(2) + "\n"));
  return rename((path + ".new").c_str(), path.c_str()) == 0 ? Status() : fail_errno("rename " + path);
}

std::vector<LabState> all_labs() {
  std::vector<LabState> labs;
  for (const std::string& folder : lab_folders()) {
    if (!is_alive(folder)) continue;
    Result<LabState> state = load_state(folder);
    if (state) labs.push_back(std::move(*state));
  }
  return labs;
}

Result<LabState> find_lab(const std::string& name) {
  std::vector<LabState> labs = all_labs();
  std::string names;
  for (LabState& lab : labs) {
    if (lab.spec.name == (name.empty() ? "lab" : name)) return std::move(lab);
    names += " " + lab.spec.name;
  }
  if (labs.empty()) return fail(0, "no lab is up; `mosixlab up` makes one");
  if (!name.empty()) return fail(0, "no lab is called " + name + "; there are:" + names);
  if (labs.size() == 1) return std::move(labs[0]);
  return fail(0, "which lab? --name takes one of:" + names);
}

Status remove_lab_files(const std::string& state_dir) {
  // Not lab_root(): in the keeper of an ordinary user geteuid() is 0, inside his user namespace.
  std::string root = fs::path(state_dir).parent_path();
  UniqueFd root_lock = lock_root(root);
  Status removed = remove_files(state_dir);
  rmdir(root.c_str());
  return removed;
}

void sweep_dead_labs() {
  UniqueFd root_lock = lock_root(lab_root());
  for (const std::string& folder : lab_folders())
    if (!is_alive(folder)) (void)remove_files(folder);
}

std::string labs_as_table(const std::vector<LabState>& labs) {
  std::vector<std::vector<std::string>> rows = {{"LAB", "NODE", "ADDRESS", "PID", "MOSIXD", "LOG"}};
  for (const LabState& lab : labs)
    for (const NodeState& node : lab.nodes)
      rows.push_back(
          {lab.spec.name, node.name, node.address, std::to_string(node.init), node.daemon, node.log});
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); i++)
      text += row[i] + std::string(widths[i] + 2 - row[i].size(), ' ');
    text += row.back() + "\n";
  }
  return text;
}

std::string labs_as_json(const std::vector<LabState>& labs) {
  json array = json::array();
  for (const LabState& lab : labs) array.push_back(to_json(lab));
  return array.dump(2) + "\n";
}

}  // namespace mosix::lab
