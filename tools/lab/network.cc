#include "tools/lab/network.h"

#include <algorithm>
#include <cstdlib>

#include "tools/lab/process.h"

namespace mosix::lab {
namespace {

/// Token bucket: what may go at once is 4 ms at the rate (a kernel tick with HZ=250), at least 16 full
/// frames; what waits longer than 50 ms is dropped, as a switch would.
Result<std::string> shaping_of(const LabSpec& spec) {
  if (spec.rate.empty()) return std::string();
  TRY(double bits, parse_rate(spec.rate));
  long burst = std::max(16 * 1514L, static_cast<long>(bits / 8 / 250));
  return "tbf rate " + std::to_string(static_cast<long long>(bits)) + "bit burst " + std::to_string(burst) +
         " latency 50ms";
}

/// netem is a module that small kernels leave out, and tc's own words do not say so.
Status run_tc(const std::string& batch) {
  if (batch.empty()) return {};
  Status done = run_program({"tc", "-batch", "-"}, batch);
  if (!done && done.error().what.find("kind is unknown") != std::string::npos) {
    bool netem = batch.find("netem") != std::string::npos;
    return fail(0, netem
                       ? "this kernel has no netem (CONFIG_NET_SCH_NETEM), so --delay cannot work here"
                       : "this kernel has no token bucket (CONFIG_NET_SCH_TBF), so --rate cannot work here");
  }
  return done;
}

}  // namespace

Result<double> parse_rate(const std::string& rate) {
  static constexpr struct {
    const char* unit;
    double factor;
  } kUnits[] = {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}};
  char* end = nullptr;
  double number = strtod(rate.c_str(), &end);
  for (const auto& entry : kUnits)
    if (strcasecmp(end, entry.unit) == 0 && number * entry.factor >= 8000 && number * entry.factor <= 1e12)
      return number * entry.factor;
  return fail(
      0, "--rate " + rate + ": expected a number with bit, kbit, mbit or gbit, from 8kbit, as in 100mbit");
}

Status check_delay(const std::string& delay) {
  char* end = nullptr;
  double number = strtod(delay.c_str(), &end);
  std::string unit = end;
  if (end != delay.c_str() && number > 0 && (unit == "us" || unit == "ms" || unit == "s")) return {};
  return fail(0, "--delay " + delay + ": expected a number with us, ms or s, as in 10ms");
}

Status make_bridge(const LabSpec& spec, const std::vector<pid_t>& inits) {
  TRY(std::string shaping, shaping_of(spec));
  std::string links = "link add mosix0 type bridge mcast_snooping 0\nlink set mosix0 addrgenmode none up\n";
  std::string queues;
  for (size_t i = 0; i < inits.size(); i++) {
    std::string port = node_name(static_cast<int>(i) + 1);
    links += "link add " + port + " type veth peer name eth0 netns " + std::to_string(inits[i]) + "\n";
    links += "link set " + port + " master mosix0 addrgenmode none up\n";
    if (!shaping.empty()) queues += "qdisc add dev " + port + " root " + shaping + "\n";
  }
  TRY_VOID(run_program({"ip", "-batch", "-"}, links));
  return run_tc(queues);
}

Status set_up_node_links(const LabSpec& spec, int k) {
  TRY(std::string shaping, shaping_of(spec));
  TRY_VOID(run_program({"ip", "-batch", "-"}, "link set lo up\nlink set eth0 addrgenmode none\naddr add " +
                                                  node_address(k) + "/24 dev eth0\nlink set eth0 up\n"));
  std::string queues;
  if (!shaping.empty()) queues = "qdisc add dev eth0 root handle 1: " + shaping + "\n";
  if (!spec.delay.empty())
    queues += std::string("qdisc add dev eth0 ") + (shaping.empty() ? "root" : "parent 1:1") +
              " handle 10: netem delay " + spec.delay + " limit 100000\n";
  return run_tc(queues);
}

}  // namespace mosix::lab
