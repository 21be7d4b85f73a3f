// The map of the cluster: openMosix's syntax, look-ups, and an error with file, line and cure for each way
// to get it wrong.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "cluster/map.h"

#include <doctest/doctest.h>

#include <fstream>

#include "libmosix/common/paths.h"

using namespace mosix;

namespace {

Result<std::string> hosts(const std::string& name) {
  if (name == "mail") return std::string("10.0.0.6");
  if (name == "mail.example.org") return std::string("10.0.1.6");
  if (name == "farm") return std::string("10.0.0.20");
  return fail(0, "resolve " + name + ": not known");
}

Result<ClusterMap> parse(const std::string& text) { return ClusterMap::parse(text, "mosix.map", hosts); }

/// The error of a map that must not be accepted.
std::string refusal(const std::string& text) {
  Result<ClusterMap> map = parse(text);
  REQUIRE_FALSE(map);
  return map.error().message();
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("ranges count the last byte and the number up") {
  auto map = parse("# number address count\n\n 1 192.168.0.1 5   # the racks\n10\t10.0.0.250\t6\n");
  REQUIRE(map);
  CHECK(map->nodes().size() == 11);
  REQUIRE(map->by_id(5));
  CHECK(map->by_id(5)->address == "192.168.0.5");
  CHECK(map->by_id(15)->address == "10.0.0.255");
  CHECK(map->by_id(6) == nullptr);
  REQUIRE(map->by_address("192.168.0.3"));
  CHECK(map->by_address("192.168.0.3")->id == 3);
  CHECK(map->by_address("192.168.0.6") == nullptr);
}

TEST_CASE("names, numbers and addresses find a node") {
  auto map = parse("1 mail 1\n2 farm 3\n9 10.9.9.9 1\n");
  REQUIRE(map);
  CHECK(map->find("mail")->id == 1);
  CHECK(map->find("mail")->address == "10.0.0.6");
  CHECK(map->find("node3")->address == "10.0.0.21");
  CHECK(map->find("4")->address == "10.0.0.22");
  CHECK(map->find("10.9.9.9")->id == 9);
  CHECK(map->find("nobody") == nullptr);
  CHECK(map->find("") == nullptr);
  CHECK(map->find("-1") == nullptr);
  CHECK(map->find("99999999999999999999") == nullptr);
}

TEST_CASE("a name without its domain is enough where only one node has it") {
  auto one = parse("1 mail.example.org 1\n2 10.0.0.2 1\n");
  REQUIRE(one);
  CHECK(one->find("mail")->id == 1);
  auto two = parse("1 mail.example.org 1\n2 mail.example.net 1\n");
  REQUIRE(two);
  CHECK(two->find("mail") == nullptr);
}

TEST_CASE("ALIAS gives a node a further address, also before its own line") {
  auto map = parse("6 10.0.0.66 ALIAS\n6 10.0.0.6 1\n6 mail ALIAS\n");
  REQUIRE(map);
  CHECK(map->by_address("10.0.0.66")->id == 6);
  CHECK(map->by_id(6)->address == "10.0.0.6");
  CHECK(map->by_id(6)->aliases == std::vector<std::string>{"10.0.0.66"});
}

TEST_CASE("a name that does not resolve is dialled by name and spoils nothing") {
  auto map = parse("1 10.0.0.1 1\n2 lost 1\n");
  REQUIRE(map);
  CHECK(map->by_id(2)->address.empty());
  CHECK(map->by_id(2)->dial_name() == "lost");
  CHECK(has(refusal("2 lost 2\n"), "mosix.map:1: lost has no address to count from"));
  CHECK(has(refusal("1 10.0.0.1 1\n1 lost ALIAS\n"), "mosix.map:2: alias lost has no address"));
}

TEST_CASE("learned names replace made-up ones only") {
  auto map = parse("1 mail 1\n2 10.0.0.2 2\n");
  REQUIRE(map);
  map->learn_name(1, "other");
  CHECK(map->by_id(1)->name == "mail");
  map->learn_name(2, "mail");
  CHECK(map->by_id(2)->name == "node2");
  map->learn_name(2, "bad name\n");
  CHECK(map->by_id(2)->name == "node2");
  map->learn_name(2, "kiwi");
  CHECK(map->find("kiwi")->id == 2);
  map->learn_name(3, "kiwi");
  CHECK(map->by_id(3)->name == "node3");
  CHECK(map->names() == "mail, kiwi, node3");
}

TEST_CASE("every error names file, line and cure") {
  CHECK(has(refusal(""), "mosix.map: no node in it; write one line"));
  CHECK(has(refusal("\n1 10.0.0.1\n"), "mosix.map:2: 2 words instead of three; write `number"));
  CHECK(has(refusal("1 10.0.0.1 1 extra\n"), "4 words"));
  CHECK(has(refusal("0 10.0.0.1 1\n"), "mosix.map:1: node number \"0\" is not 1 to 65535"));
  CHECK(has(refusal("65536 10.0.0.1 1\n"), "is not 1 to 65535"));
  CHECK(has(refusal("99999999999999 10.0.0.1 1\n"), "is not 1 to 65535"));
  CHECK(has(refusal("one 10.0.0.1 1\n"), "node number \"one\""));
  CHECK(has(refusal("1 10.0.0.256 1\n"), "neither an IPv4 address nor a host name"));
  CHECK(has(refusal("1 a/b 1\n"), "neither an IPv4 address nor a host name"));
  CHECK(has(refusal("1 10.0.0.1 0\n"), "count \"0\""));
  CHECK(has(refusal("1 10.0.0.1 alias\n"), "nor ALIAS"));
  CHECK(has(refusal("1 10.0.0.250 7\n"), "beyond 255; write two lines"));
  CHECK(has(refusal("65530 10.0.0.1 7\n"), "beyond node number 65535"));
  CHECK(has(refusal("1 10.0.0.1 2147483647\n"), "beyond node number 65535"));
  CHECK(has(refusal("1 10.0.0.1 2\n2 10.0.0.9 1\n"), "mosix.map:2: node 2 is there twice"));
  CHECK(
      has(refusal("1 10.0.0.1 2\n5 10.0.0.2 1\n"), "mosix.map:2: 10.0.0.2 is already the address of node 2"));
  CHECK(has(refusal("1 mail 1\n2 10.0.0.6 1\n"), "already the address of node 1"));
  CHECK(has(refusal("1 10.0.0.1 1\n7 10.0.0.9 ALIAS\n"), "mosix.map:2: ALIAS of node 7, which is nowhere"));
  CHECK(has(refusal("1 10.0.0.1 2\n2 10.0.0.1 ALIAS\n"), "mosix.map:2: 10.0.0.1 is already"));
  std::string many;
  for (size_t i = 1; i <= kMaxMapLines + 1; ++i)
    many += std::to_string(i) + " h" + std::to_string(i) + " 1\n";
  CHECK(has(refusal(many), "more than 4096 entries"));
}

TEST_CASE("the own node is found by number, listening address, interfaces, host name") {
  auto map = parse("1 10.0.0.1 2\n3 10.0.0.3 1\n3 10.1.0.3 ALIAS\n4 mail 1\n");
  REQUIRE(map);
  using List = std::vector<std::string>;
  CHECK(own_node(*map, 0, "0.0.0.0", List{"10.0.0.2", "127.0.0.1"}, "x")->id == 2);
  CHECK(own_node(*map, 0, "0.0.0.0", List{"10.1.0.3", "10.0.0.3"}, "x")->id == 3);
  CHECK(own_node(*map, 0, "10.0.0.1", List{"10.0.0.2"}, "x")->id == 1);
  CHECK(own_node(*map, 4, "0.0.0.0", List{"10.0.0.2"}, "x")->id == 4);
  CHECK(own_node(*map, 0, "0.0.0.0", List{"172.16.0.1"}, "mail")->id == 4);

  auto both = own_node(*map, 0, "0.0.0.0", List{"10.0.0.1", "10.0.0.2"}, "x");
  REQUIRE_FALSE(both);
  CHECK(has(both.error().message(), "addresses of node 1 and of node 2 in mosix.map; write node_id"));
  auto none = own_node(*map, 0, "0.0.0.0", List{"172.16.0.1", "127.0.0.1"}, "x");
  REQUIRE_FALSE(none);
  CHECK(has(none.error().message(), "(172.16.0.1, 127.0.0.1) is in mosix.map; add a line"));
  auto elsewhere = own_node(*map, 0, "10.0.0.77", List{"10.0.0.1"}, "mail");
  REQUIRE_FALSE(elsewhere);
  CHECK(has(elsewhere.error().message(), "(10.0.0.77)"));
  auto absent = own_node(*map, 9, "0.0.0.0", List{"10.0.0.1"}, "x");
  REQUIRE_FALSE(absent);
  CHECK(has(absent.error().message(), "node_id = 9 in the settings, but mosix.map has no node 9"));
}

TEST_CASE("a missing map names every place and how to write one") {
  setenv("MOSIX_ETC_DIR", "/nonexistent/etc", 1);
  auto none = find_map_file("/nonexistent/mosix.map");
  REQUIRE_FALSE(none);
  CHECK(has(none.error().message(), "/nonexistent/mosix.map"));
  CHECK(has(none.error().message(), "number address count"));
  CHECK_FALSE(ClusterMap::load("/nonexistent/mosix.map", hosts));
}

TEST_CASE("a file with binary rubbish is an error, not a crash") {
  std::string rubbish;
  for (int i = 0; i < 4096; ++i) rubbish.push_back(static_cast<char>(i * 7919 >> 3));
  CHECK_FALSE(parse(rubbish));
}
