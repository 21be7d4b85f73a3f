#include "tools/trace_output.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "tools/trace_filter.h"

namespace mosix {
namespace {

std::string time_text(int64_t ns, int style) {
  if (style == 0) return "";
  if (style == 3) return fmt::format("{}.{:06} ", ns / 1'000'000'000, ns % 1'000'000'000 / 1000);
  time_t seconds = ns / 1'000'000'000;
  tm parts{};
  localtime_r(&seconds, &parts);
  std::string text = fmt::format("{:%H:%M:%S}", parts);
  if (style == 2) text += fmt::format(".{:06}", ns % 1'000'000'000 / 1000);
  return text + " ";
}

/// `[pid]`, or `[pid/tid]` for a thread that is not the first.
std::string who_text(const Json& event) {
  int64_t pid = field_integer(event, "pid"), tid = field_integer(event, "tid", pid);
  return tid == pid || tid == 0 ? fmt::format("[{}] ", pid) : fmt::format("[{}/{}] ", pid, tid);
}

/// `<home 45us>`, in parts `<home 45us = 12us here + 33us home and back>`.
std::string cost_text(const Json& event, bool parts) {
  double whole = field_number(event, "round_trip_ns"), home = field_number(event, "home_ns");
  std::string text = printable(field_text(event, "answered_by", "?")) + " " + span_text(whole);
  if (parts && home > 0)
    text +=
        fmt::format(" = {} here + {} home and back", span_text(std::max(whole - home, 0.0)), span_text(home));
  return " <" + text + ">";
}

constexpr const char* kPlaces[] = {"here", "home", "cache", "posted", "split", "brought_home"};

}  // namespace

std::string span_text(double ns) {
  if (ns < 1000) return fmt::format("{:.0f}ns", ns);
  if (ns < 10'000) return fmt::format("{:.1f}us", ns / 1e3);
  if (ns < 1e6) return fmt::format("{:.0f}us", ns / 1e3);
  if (ns < 1e9) return fmt::format("{:.1f}ms", ns / 1e6);
  return fmt::format("{:.2f}s", ns / 1e9);
}

std::string trace_line(const Json& event, const TraceStyle& style) {
  if (style.json) return json_text(event) + "\n";
  std::string line = time_text(field_integer(event, "started_ns"), style.times) + who_text(event);
  line += printable(field_text(event, "text", call_name(event) + "(?)"));
  line += " = " + printable(field_text(event, "result_text", std::to_string(field_integer(event, "result"))));
  line += cost_text(event, style.parts) + "\n";
  if (!style.stacks) return line;
  for (const Json& frame : field_array(event, "stack"))
    if (frame.is_string()) line += " > " + printable(frame.get<std::string>()) + "\n";
  return line;
}

void TraceSummary::add(const Json& event) {
  Row& row = rows_[printable(call_name(event))];
  ++row.calls;
  if (is_failure(event)) ++row.errors;
  row.total_ns += static_cast<uint64_t>(std::max<int64_t>(field_integer(event, "round_trip_ns"), 0));
  ++row.answered[field_text(event, "answered_by", "?")];
}

std::string TraceSummary::text() const {
  std::vector<std::pair<std::string, Row>> rows(rows_.begin(), rows_.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.total_ns > b.second.total_ns; });
  Row sum;
  for (const auto& [name, row] : rows) {
    sum.calls += row.calls, sum.errors += row.errors, sum.total_ns += row.total_ns;
    for (const auto& [place, count] : row.answered) sum.answered[place] += count;
  }
  auto share = [](double part, double whole) { return whole > 0 ? 100 * part / whole : 0.0; };
  auto line = [&](const std::string& name, const Row& row) {
    std::string text = fmt::format(
        "{:6.2f} {:>11.6f} {:>11.0f} {:>9} {:>9}",
        share(static_cast<double>(row.total_ns), static_cast<double>(sum.total_ns)),
        static_cast<double>(row.total_ns) / 1e9,
        static_cast<double>(row.total_ns) / 1e3 / static_cast<double>(std::max<uint64_t>(row.calls, 1)),
        row.calls, row.errors == 0 ? "" : std::to_string(row.errors));
    for (const char* place : kPlaces) {
      auto found = row.answered.find(place);
      double percent = found == row.answered.end()
                           ? 0
                           : share(static_cast<double>(found->second), static_cast<double>(row.calls));
      text += fmt::format(" {:>6}", percent == 0 ? "" : fmt::format("{:.0f}%", percent));
    }
    return text + " " + name + "\n";
  };
  std::string rule =
      "------ ----------- ----------- --------- --------- ------ ------ ------ ------ ------ ------ "
      "----------------\n";
  std::string text =
      "% time     seconds  usecs/call     calls    errors   here   home  cache posted  split to-hom "
      "syscall\n" +
      rule;
  for (const auto& [name, row] : rows) text += line(name, row);
  return text + rule + line("total", sum);
}

Json TraceSummary::json() const {
  Json rows = Json::array();
  for (const auto& [name, row] : rows_)
    rows.push_back({{"syscall", name},
                    {"calls", row.calls},
                    {"errors", row.errors},
                    {"total_ns", row.total_ns},
                    {"average_ns", row.total_ns / std::max<uint64_t>(row.calls, 1)},
                    {"answered_by", row.answered}});
  return rows;
}

}  // namespace mosix
