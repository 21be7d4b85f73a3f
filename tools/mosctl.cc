// mosctl: what an administrator or a curious user asks mosixd: who is there, where is my process and why, and
// what does this machine lack.

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>

#include "libmosix/common/membership.h"
#include "tools/mosctl_check.h"
#include "tools/tool_common.h"

namespace mosix {
namespace {

constexpr char kFooter[] = R"(Exit status:
  0  done (check: everything essential is there)
  1  refused, or failed (check: something essential is lacking)
  2  wrong command line          3  no mosixd runs here
  4  no such process             5  it belongs to another user
  7  mosixd broke off)";

struct Options {
  bool json = false;
  bool kernel_only = false;
  std::string pid;
};

/// Asks, and prints the reply as JSON or by `print`.
int ask_and_print(const Json& request, bool json, const std::function<void(const Json&)>& print) {
  auto reply = ask_daemon(request, kAskLimitMs);
  if (!reply) return report_failure("mosctl", reply.error());
  if (json)
    fmt::print("{}\n", json_text(*reply, 2));
  else
    print(*reply);
  return kExitDone;
}

void print_status(const Json& status) {
  fmt::print("node     {} (number {}), Linux {}\n", printable(field_text(status, "node", "?")),
             field_integer(status, "id"), printable(field_text(status, "kernel", "?")));
  fmt::print("mosixd   {}, as uid {}, since {}\n", printable(field_text(status, "version", "?")),
             field_integer(status, "uid"), duration_text(field_number(status, "uptime_s")));
  fmt::print("nodes    {}\n", field_integer(status, "nodes"));
  fmt::print("away     {} own processes on other nodes\n", field_integer(status, "away"));
  fmt::print("guests   {} of other nodes here\n", field_integer(status, "guests"));
  std::string brought = homecomings_text(status);
  if (!brought.empty()) fmt::print("brought  {}\n", brought);
}

std::vector<std::string> node_row(const Json& node) {
  bool up = field_flag(node, "up");
  auto figure = [&](std::string text) { return up ? std::move(text) : std::string("-"); };
  return {
      std::to_string(field_integer(node, "id")),
      printable(field_text(node, "name", "?")),
      printable(field_text(node, "address", "?")),
      up ? "up" : "down",
      figure(fmt::format("{:.2f}", field_number(node, "load"))),
      figure(std::to_string(field_integer(node, "cpus"))),
      figure(bytes_text(field_number(node, "free_mb") * 1048576)),
      figure(bytes_text(field_number(node, "memory_mb") * 1048576)),
      figure(std::to_string(field_integer(node, "guests"))),
      figure(fmt::format("{:.2f}ms", field_number(node, "rtt_us") / 1000)),
      up ? "" : printable(field_text(node, "error")),
  };
}

void print_nodes(const Json& reply) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& node : field_array(reply, "nodes"))
    if (node.is_object()) rows.push_back(node_row(node));
  print_table(
      {">ID", "NAME", "ADDRESS", "STATE", ">LOAD", ">CPUS", ">FREE", ">MEMORY", ">GUESTS", ">RTT", "ERROR"},
      rows);
}

std::string time_text(const Json& move) {
  double seconds = field_number(move, "time", -1);
  if (seconds < 0) return printable(field_text(move, "time", "?"));
  auto time = static_cast<time_t>(seconds);
  tm parts{};
  localtime_r(&time, &parts);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", parts);
}

void print_why(const Json& reply) {
  std::string reason = printable(field_text(reply, "reason"));
  fmt::print(
      "{} is {}{}\n", field_integer(reply, "pid"),
      field_text(reply, "where") == "home" ? "at home" : "on " + printable(field_text(reply, "where", "?")),
      reason.empty() ? "" : ": " + reason);
  std::vector<std::vector<std::string>> rows;
  for (const Json& move : field_array(reply, "history"))
    if (move.is_object())
      rows.push_back({time_text(move), printable(field_text(move, "from", "?")),
                      printable(field_text(move, "to", "?")), field_flag(move, "ok") ? "moved" : "not moved",
                      printable(field_text(move, "reason"))});
  if (!rows.empty()) print_table({"TIME", "FROM", "TO", "RESULT", "REASON"}, rows);
}

int ask_about_process(const char* op, const Options& options, const std::function<void(const Json&)>& print) {
  int pid = parse_pid(options.pid);
  if (pid == 0) return report_failure("mosctl", usage_failure("not a process number: " + options.pid));
  return ask_and_print({{"op", op}, {"pid", pid}}, options.json, [&](const Json& reply) {
    Json whole = reply;
    whole["pid"] = pid;
    print(whole);
  });
}

int print_key(bool json) {
  auto key = generate_cluster_key();
  if (!key) return report_failure("mosctl", {kExitNotDone, key.error()});
  while (key->ends_with('\n')) key->pop_back();
  fmt::print("{}\n", json ? json_text({{"key", *key}}) : *key);
  return kExitDone;
}

int run(int argc, char** argv) {
  CLI::App app("Asks mosixd about nodes and processes, and checks this machine.", "mosctl");
  app.set_version_flag("--version", version_text("mosctl"), "print the version");
  app.set_help_flag("-h,--help", "print this text");
  app.require_subcommand(1);
  app.footer(kFooter);
  Options options;
  auto command = [&](const char* name, const char* text) {
    CLI::App* sub = app.add_subcommand(name, text);
    sub->add_flag("--json", options.json, "print JSON");
    return sub;
  };
  CLI::App* status = command("status", "this node: its mosixd, its guests, its processes elsewhere");
  CLI::App* nodes = command("nodes", "every node of the map, asked just now");
  CLI::App* where = command("where", "the name of the node where a process runs");
  CLI::App* why = command("why", "why a process is where it is, and how it came there");
  CLI::App* check =
      command("check", "try every kernel feature that is needed, and say the cure for each lack");
  CLI::App* key = command("key", "print a new cluster key");
  for (CLI::App* sub : {where, why})
    sub->add_option("PID", options.pid, "the process, by its number at home")->required();
  check->add_flag("--kernel", options.kernel_only, "only the kernel: not mosixd, key and nodes");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? kExitDone : kExitUsage;
  }
  if (status->parsed()) return ask_and_print({{"op", "status"}}, options.json, print_status);
  if (nodes->parsed()) return ask_and_print({{"op", "nodes"}}, options.json, print_nodes);
  if (where->parsed())
    return ask_about_process("where", options, [](const Json& reply) {
      fmt::print("{}\n", printable(field_text(reply, "where", "?")));
    });
  if (why->parsed()) return ask_about_process("why", options, print_why);
  if (check->parsed()) return check_machine(options.json, options.kernel_only);
  return key->parsed() ? print_key(options.json) : kExitUsage;
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) { return mosix::run(argc, argv); }
