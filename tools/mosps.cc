// mosps: the processes that libmosix looks after on this node, one a line: whose home this is, and with -a
// also the guests of other nodes. A `ps` that knows where things really run.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "tools/tool_common.h"

namespace mosix {
namespace {

constexpr char kFooter[] =
    R"(Exit status: 0 printed, 2 wrong command line, 3 no mosixd runs here, 7 mosixd broke off.)";

std::vector<std::string> row_of(const Json& process) {
  return {
      std::to_string(field_integer(process, "pid")),
      printable(field_text(process, "program", "?")),
      printable(field_text(process, "home", "?")),
      printable(field_text(process, "where", "?")),
      std::to_string(field_integer(process, "moves")),
      duration_text(field_number(process, "cpu_away_ms") / 1000),
      fmt::format("{:.0f}", field_number(process, "calls_per_s")),
      duration_text(field_number(process, "since_s")),
      printable(field_text(process, "reason")),
  };
}

/// Own processes, and guests of others only when asked for; by number.
Json chosen(const Json& reply, bool all) {
  Json rows = Json::array();
  for (const Json& process : field_array(reply, "processes"))
    if (process.is_object() && (all || !field_flag(process, "foreign"))) rows.push_back(process);
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return field_integer(a, "pid") < field_integer(b, "pid");
  });
  return rows;
}

int run(int argc, char** argv) {
  CLI::App app("Lists the processes of this node that libmosix looks after.", "mosps");
  bool all = false, json = false;
  app.add_flag("-a,--all", all, "also the guests that other nodes have here");
  app.add_flag("--json", json, "print the table as a JSON array");
  app.set_version_flag("--version", version_text("mosps"), "print the version");
  app.set_help_flag("-h,--help", "print this text");
  app.footer(kFooter);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? kExitDone : kExitUsage;
  }
  auto reply = ask_daemon({{"op", "processes"}, {"all", all}}, kAskLimitMs);
  if (!reply) return report_failure("mosps", reply.error());
  Json processes = chosen(*reply, all);
  if (json) {
    fmt::print("{}\n", json_text(processes, 2));
    return kExitDone;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& process : processes) rows.push_back(row_of(process));
  print_table({">PID", "PROGRAM", "HOME", "WHERE", ">MOVES", ">CPU-AWAY", ">CALLS/S", ">TIME", "WHY"}, rows);
  return kExitDone;
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) { return mosix::run(argc, argv); }
