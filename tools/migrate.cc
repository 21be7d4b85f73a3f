// migrate PID NODE|home: moves a running process and says what it cost. The work is mosixd's and the
// custodian's; this is one request and one line of text.

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "tools/tool_common.h"

namespace mosix {
namespace {

constexpr char kFooter[] = R"(Exit status:
  0  the process runs where it was asked to
  1  it was not moved; the reason is on standard error, and it goes on where it was
  2  wrong command line          3  no mosixd runs here
  4  no such process             5  it belongs to another user
  6  no node of that name        7  mosixd broke off)";

struct Order {
  int pid = 0;
  std::string to;
  bool json = false;
};

void print_move(const Order& order, const Json& reply) {
  if (order.json) return fmt::print("{}\n", json_text(reply));
  fmt::print("{} moved from {} to {}: freeze {:.1f} ms, total {:.1f} ms, {:.1f} MB\n",
             field_integer(reply, "pid", order.pid), printable(field_text(reply, "from", "?")),
             printable(field_text(reply, "to", order.to)), field_number(reply, "freeze_ms"),
             field_number(reply, "total_ms"), field_number(reply, "bytes") / 1e6);
}

int print_refusal(const Order& order, const Failure& failure) {
  if (order.json)
    fmt::print(
        "{}\n",
        json_text(Json{
            {"ok", false}, {"pid", order.pid}, {"code", failure.error.code}, {"error", failure.error.what}}));
  return report_failure("migrate", failure);
}

int run(int argc, char** argv) {
  CLI::App app("Moves a running process to another node, or home.", "migrate");
  Order order;
  std::string pid_text;
  app.add_option("PID", pid_text, "the process, by its number at home")->required();
  app.add_option("NODE", order.to, "name, number or address of a node, or `home`")->required();
  app.add_flag("--json", order.json, "print mosixd's answer as one JSON object");
  app.set_version_flag("--version", version_text("migrate"), "print the version");
  app.set_help_flag("-h,--help", "print this text");
  app.footer(kFooter);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? kExitDone : kExitUsage;
  }
  order.pid = parse_pid(pid_text);
  if (order.pid == 0) return report_failure("migrate", usage_failure("not a process number: " + pid_text));
  auto reply = ask_daemon({{"op", "migrate"}, {"pid", order.pid}, {"to", order.to}}, kMoveLimitMs);
  if (!reply) return print_refusal(order, reply.error());
  print_move(order, *reply);
  return kExitDone;
}

}  // namespace
}  // namespace mosix

int main(int argc, char** argv) { return mosix::run(argc, argv); }
