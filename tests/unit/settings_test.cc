// Settings: defaults, every key, and an error with its line for each wrong one.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "cluster/settings.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

using namespace mosix;

namespace {
std::string refusal(const std::string& text) {
  Result<Settings> settings = parse_settings(text, "mosix.toml");
  REQUIRE_FALSE(settings);
  return settings.error().message();
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST_CASE("nothing written means defaults") {
  setenv("MOSIX_ETC_DIR", "/nonexistent", 1);
  auto settings = load_settings("");
  REQUIRE(settings);
  CHECK(settings->file.empty());
  CHECK(settings->port == 7230);
  CHECK(settings->listen == "0.0.0.0");
  CHECK(settings->key_file == "/nonexistent/cluster.key");
  CHECK(settings->max_guests == 1024);
  CHECK_FALSE(settings->allow_root_guests);
  CHECK(settings->guest_user == "nobody");
  CHECK(settings->features_off.empty());
}

TEST_CASE("a file that was named must be there") {
  auto settings = load_settings("/nonexistent/mosix.toml");
  REQUIRE_FALSE(settings);
  CHECK(has(settings.error().message(), "/nonexistent/mosix.toml"));
}

TEST_CASE("every key is read") {
  auto settings = parse_settings(
      "node_id = 7\nnode_name = \"kiwi\"\nlisten = \"10.0.0.7\"\nport = 7777\nkey_file = \"/k\"\n"
      "map_file = \"/m\"\nmax_guests = 3\nallow_root_guests = true\nguest_user = \"\"\nlog_level = "
      "\"debug\"\n"
      "[features]\nio_uring = false\npagemap_scan = false\nfast_path = true\n",
      "mosix.toml");
  REQUIRE(settings);
  CHECK(settings->node_id == 7);
  CHECK(settings->node_name == "kiwi");
  CHECK(settings->listen == "10.0.0.7");
  CHECK(settings->port == 7777);
  CHECK(settings->key_file == "/k");
  CHECK(settings->map_file == "/m");
  CHECK(settings->max_guests == 3);
  CHECK(settings->allow_root_guests);
  CHECK(settings->guest_user.empty());
  CHECK(settings->debug);
  CHECK(settings->features_off == std::vector<std::string>{"io_uring", "pagemap_scan"});
  CHECK(features_off_value(*settings, "") == "io_uring,pagemap_scan");
  CHECK(features_off_value(*settings, "io_uring,,other") == "io_uring,pagemap_scan,other");
}

TEST_CASE("wrong settings name the line") {
  CHECK(has(refusal("\n\nmax_guest = 3\n"), "mosix.toml:3: unknown setting \"max_guest\""));
  CHECK(has(refusal("port = \"7230\"\n"), "mosix.toml:1: port must be a number from 1 to 65535"));
  CHECK(has(refusal("port = 0\n"), "port must be"));
  CHECK(has(refusal("port = 70000\n"), "port must be"));
  CHECK(has(refusal("node_id = 65536\n"), "node_id must be a number from 1 to 65535"));
  CHECK(has(refusal("allow_root_guests = \"yes\"\n"), "allow_root_guests must be true or false"));
  CHECK(has(refusal("node_name = \"a b\"\n"), "node_name must be a name"));
  CHECK(has(refusal("log_level = \"loud\"\n"), "log_level must be \"info\" or \"debug\""));
  CHECK(has(refusal("# x\n[features]\nwarp = true\n"),
            "mosix.toml:3: unknown feature \"warp\"; there are: io_uring"));
  CHECK(has(refusal("[features]\nio_uring = 1\n"), "mosix.toml:2: feature io_uring must be true or false"));
  CHECK(has(refusal("features = 1\n"), "mosix.toml:1: features is a table"));
  CHECK(has(refusal("port = \n"), "mosix.toml:1:"));
  CHECK(has(refusal("port = 1\nport = 2\n"), "mosix.toml:2:"));
}

TEST_CASE("the packaged file shows the defaults and nothing that mosixd would refuse") {
  const char* packaged = getenv("MOSIX_PACKAGED_SETTINGS");
  REQUIRE(packaged != nullptr);
  std::ifstream in(packaged);
  REQUIRE(in);
  std::string shown, enabled;
  // Lines such as `#port = 7230` are settings behind a mark; prose has a space after it.
  for (std::string line; std::getline(in, line);) {
    shown += line + "\n";
    bool setting = line.size() > 1 && line[0] == '#' && line[1] != ' ';
    enabled += (setting ? line.substr(1) : line) + "\n";
  }
  auto as_shipped = parse_settings(shown, packaged);
  REQUIRE(as_shipped);
  CHECK(as_shipped->features_off.empty());
  setenv("MOSIX_ETC_DIR", "/etc/mosix", 1);
  auto all = parse_settings(enabled, packaged);
  REQUIRE_MESSAGE(all, all.error().message());
  auto defaults = parse_settings("", "none");
  CHECK(all->port == defaults->port);
  CHECK(all->listen == defaults->listen);
  CHECK(all->key_file == defaults->key_file);
  CHECK(all->max_guests == defaults->max_guests);
  CHECK(all->allow_root_guests == defaults->allow_root_guests);
  CHECK(all->guest_user == defaults->guest_user);
  CHECK(all->debug == defaults->debug);
  CHECK(all->features_off.empty());
}
