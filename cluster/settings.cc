#include "cluster/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "libmosix/common/paths.h"

namespace mosix {
namespace {

/// Reads one value into the settings; returns what it should have been, or an empty text.
using Setter = std::function<std::string(Settings&, const toml::node&)>;

Setter text(std::string Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    auto value = node.value_exact<std::string>();
    if (!value) return "a text in quotes";
    settings.*field = *value;
    return "";
  };
}

Setter number(int Settings::*field, int least, int most) {
  return [=](Settings& settings, const toml::node& node) -> std::string {
    auto value = node.value_exact<int64_t>();
    if (!value || *value < least || *value > most) return fmt::format("a number from {} to {}", least, most);
    settings.*field = static_cast<int>(*value);
    return "";
  };
}

Setter flag(bool Settings::*field) {
  return [field](Settings& settings, const toml::node& node) -> std::string {
    auto value = node.value_exact<bool>();
    if (!value) return "true or false";
    settings.*field = *value;
    return "";
  };
}

std::string set_log_level(Settings& settings, const toml::node& node) {
  auto value = node.value_exact<std::string>();
  if (!value || (*value != "info" && *value != "debug")) return "\"info\" or \"debug\"";
  settings.debug = *value == "debug";
  return "";
}

std::string set_node_name(Settings& settings, const toml::node& node) {
  auto value = node.value_exact<std::string>();
  auto plain = [](unsigned char c) { return isalnum(c) || c == '.' || c == '-' || c == '_'; };
  if (!value || value->empty() || value->size() > 64 || !std::all_of(value->begin(), value->end(), plain))
    return "a name of at most 64 letters, digits, '.', '-' and '_', in quotes";
  settings.node_name = *value;
  return "";
}

const std::map<std::string_view, Setter>& setters() {
  static const std::map<std::string_view, Setter> table = {
      {"node_id", number(&Settings::node_id, 1, 65535)},
      {"node_name", set_node_name},
      {"listen", text(&Settings::listen)},
      {"port", number(&Settings::port, 1, 65535)},
      {"key_file", text(&Settings::key_file)},
      {"map_file", text(&Settings::map_file)},
      {"max_guests", number(&Settings::max_guests, 0, 65535)},
      {"allow_root_guests", flag(&Settings::allow_root_guests)},
      {"guest_user", text(&Settings::guest_user)},
      {"log_level", set_log_level},
  };
  return table;
}

tl::unexpected<Error> wrong(const std::string& file, const toml::source_region& where,
                            const std::string& what) {
  return fail(0, fmt::format("{}:{}: {}", file, where.begin.line, what));
}

Status read_features(Settings& settings, const toml::table& table, const std::string& file) {
  for (const auto& [key, node] : table) {
    if (std::find(kFeatureNames.begin(), kFeatureNames.end(), key.str()) == kFeatureNames.end()) {
      std::string known;
      for (std::string_view name : kFeatureNames) known += (known.empty() ? "" : ", ") + std::string(name);
      return wrong(file, key.source(),
                   fmt::format("unknown feature \"{}\"; there are: {}", key.str(), known));
    }
    auto on = node.value_exact<bool>();
    if (!on) return wrong(file, node.source(), fmt::format("feature {} must be true or false", key.str()));
    if (!*on) settings.features_off.emplace_back(key.str());
  }
  return {};
}

}  // namespace

Result<Settings> parse_settings(std::string_view text, const std::string& file) {
  toml::parse_result parsed = toml::parse(text, file);
  if (!parsed) return wrong(file, parsed.error().source(), std::string(parsed.error().description()));
  Settings settings;
  settings.file = file;
  for (const auto& [key, node] : parsed.table()) {
    if (key.str() == "features") {
      if (!node.is_table()) return wrong(file, key.source(), "features is a table: write [features]");
      TRY_VOID(read_features(settings, *node.as_table(), file));
      continue;
    }
    auto setter = setters().find(key.str());
    if (setter == setters().end())
      return wrong(file, key.source(),
                   fmt::format("unknown setting \"{}\"; mosix.toml(5) lists those that exist", key.str()));
    std::string expected = setter->second(settings, node);
    if (!expected.empty())
      return wrong(file, node.source(), fmt::format("{} must be {}", key.str(), expected));
  }
  if (settings.key_file.empty()) settings.key_file = etc_dir() + "/cluster.key";
  return settings;
}

Result<Settings> load_settings(const std::string& file) {
  std::string path = file.empty() ? etc_dir() + "/mosix.toml" : file;
  std::ifstream in(path);
  if (!in) {
    if (errno == ENOENT && file.empty()) {
      TRY(Settings settings, parse_settings("", path));
      settings.file.clear();
      return settings;
    }
    return fail_errno("settings " + path);
  }
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return fail(EIO, "settings " + path);
  return parse_settings(text, path);
}

std::string features_off_value(const Settings& settings, std::string_view already) {
  std::vector<std::string> names = settings.features_off;
  std::istringstream in{std::string(already)};
  for (std::string name; std::getline(in, name, ',');)
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  std::string value;
  for (const std::string& name : names) value += (value.empty() ? "" : ",") + name;
  return value;
}

}  // namespace mosix
