// One line of log for what mattered: "mosixd[node2]: guest 4711 from node1 accepted". Goes to standard
// error (the journal, or the lab's per-node file). Called from main functions and event loops only.
#pragma once

#include <string>
#include <string_view>

namespace mosix {

enum class LogLevel { kError, kInfo, kDebug };

/// Sets the name at the head of each line, "mosixd[node1]". Call once, before threads exist.
/// MOSIX_DEBUG=1 in the environment turns debug lines on.
void log_init(std::string_view who);
void log_line(LogLevel level, std::string_view text);
bool log_debug_enabled();

inline void log_error(std::string_view text) { log_line(LogLevel::kError, text); }
inline void log_info(std::string_view text) { log_line(LogLevel::kInfo, text); }
inline void log_debug(std::string_view text) {
  if (log_debug_enabled()) log_line(LogLevel::kDebug, text);
}

}  // namespace mosix
