// What mostrace prints: a line a call, JSON, or the summary of -c.
#pragma once

#include <cstdio>
#include <map>
#include <string>

#include "tools/tool_common.h"

namespace mosix {

struct TraceStyle {
  int times = 0;        ///< -t: 1 time of day, 2 with microseconds, 3 seconds since 1970
  bool parts = false;   ///< -T: what the round trip was made of
  bool stacks = false;  ///< -k
  bool json = false;
};

/// The event as text: `[4711] openat(AT_FDCWD, "/etc/motd", O_RDONLY) = 3 <home 45us>`, then one line for
/// each frame of the stack.
std::string trace_line(const Json& event, const TraceStyle& style);

/// Counts calls by name.
class TraceSummary {
 public:
  void add(const Json& event);
  /// A table as `strace -c` prints it, with a column for each place that answered.
  std::string text() const;
  Json json() const;

 private:
  struct Row {
    uint64_t calls = 0, errors = 0, total_ns = 0;
    std::map<std::string, uint64_t> answered;
  };
  std::map<std::string, Row> rows_;
};

/// "45us", "1.2ms", "3.4s".
std::string span_text(double ns);

}  // namespace mosix
