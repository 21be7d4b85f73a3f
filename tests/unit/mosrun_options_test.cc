#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "tools/mosrun_options.h"

#include <doctest/doctest.h>

using mosix::is_listed;
using mosix::parse_run_options;
using mosix::RunOptions;
using Words = std::vector<std::string>;
using Where = RunOptions::Where;
using Lock = RunOptions::Lock;

TEST_CASE("every form of a node") {
  for (const Words& words : {Words{"-r", "node2", "x"}, Words{"-rnode2", "x"}, Words{"-node2", "x"}}) {
    auto options = parse_run_options(words);
    REQUIRE(options);
    CHECK(options->where == Where::kNode);
    CHECK(options->node == "node2");
    CHECK(options->command == Words{"x"});
  }
  CHECK(parse_run_options({"-2", "x"})->node == "2");
  CHECK(parse_run_options({"-10.0.0.2", "x"})->node == "10.0.0.2");
  CHECK(parse_run_options({"-r", "-5", "x"})->node == "-5");  // odd, but what was written
}

TEST_CASE("the last place wins") {
  CHECK(parse_run_options({"-b", "-h", "x"})->where == Where::kHome);
  CHECK(parse_run_options({"-h", "-r2", "x"})->where == Where::kNode);
  CHECK(parse_run_options({"-r2", "-j", "1-3", "x"})->where == Where::kBest);
}

TEST_CASE("clusters of switches, and what is none") {
  auto options = parse_run_options({"-bLF", "x"});
  REQUIRE(options);
  CHECK(options->where == Where::kBest);
  CHECK(options->lock == Lock::kLock);
  CHECK(options->tolerant);
  CHECK(parse_run_options({"-bar", "x"})->node == "bar");
  CHECK_FALSE(parse_run_options({"-z", "x"}));
  CHECK(parse_run_options({"x"})->lock == Lock::kKeep);
  CHECK(parse_run_options({"-L", "-l", "x"})->lock == Lock::kUnlock);  // the last counts
  CHECK(parse_run_options({"-lL", "x"})->lock == Lock::kLock);
  CHECK(parse_run_options({"-Lk", "x"})->lock == Lock::kKeep);
}

TEST_CASE("whether a node was asked for") {
  CHECK(parse_run_options({"-2", "x"})->wants_this_node());
  CHECK(parse_run_options({"-j1-3", "x"})->wants_this_node());
  CHECK_FALSE(parse_run_options({"-b", "x"})->wants_this_node());
  CHECK_FALSE(parse_run_options({"-h", "x"})->wants_this_node());
}

TEST_CASE("options end at the command") {
  CHECK(parse_run_options({"x", "-r", "--nonsense"})->command == Words{"x", "-r", "--nonsense"});
  CHECK(parse_run_options({"--", "-r"})->command == Words{"-r"});
  CHECK(parse_run_options({"-"})->command == Words{"-"});
  CHECK(parse_run_options({"-b", "--", "--"})->command == Words{"--"});
}

TEST_CASE("wrong command lines") {
  for (const Words& words :
       {Words{}, Words{"-r"}, Words{"-j"}, Words{"-r", ""}, Words{"-r", "", "x"}, Words{"-b"},
        Words{"-j", "1,,2", "x"}, Words{"-j", ",", "x"}, Words{"-j", "", "x"}, Words{"--requires", "-b", "x"},
        Words{"--require", "x"}, Words{"--require", "-h", "x"}, Words{"--require", "-F", "-b", "x"}})
    CHECK_FALSE(parse_run_options(words));
  CHECK(parse_run_options({"--help"}));
  CHECK(parse_run_options({"--version", "x"}));
}

TEST_CASE("lists") {
  CHECK(parse_run_options({"-j1-3,node5", "x"})->list == Words{"1-3", "node5"});
  Words list{"1-3", "node5", "10.0.0.9", "7"};
  CHECK(is_listed(list, "a", "b", 1));
  CHECK(is_listed(list, "a", "b", 3));
  CHECK(is_listed(list, "a", "b", 7));
  CHECK_FALSE(is_listed(list, "a", "b", 4));
  CHECK(is_listed(list, "node5", "b", 50));
  CHECK(is_listed(list, "a", "10.0.0.9", 50));
  CHECK_FALSE(is_listed(list, "7a", "1-3", -1));
  CHECK_FALSE(is_listed({"3-1"}, "a", "b", 2));
  CHECK_FALSE(is_listed({}, "a", "b", 2));
  CHECK_FALSE(is_listed({"99999999999999999999"}, "a", "b", 2));
}
