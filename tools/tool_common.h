// What the command line tools share: the conversation with mosixd over its control socket, exit codes, text
// for a terminal. Single-threaded; every tool is a short-lived process of the user who typed it.
//
// The control socket carries one JSON object per line each way. A reply is {"ok":true,...} or
// {"ok":false,"code":ERRNO,"error":"sentence"}; only `trace` is followed by further lines. Nothing that
// comes over it is trusted: lines have a bound, fields are read with their type checked, and text is
// stripped of control characters before it reaches a terminal (names come from other nodes).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

using Json = nlohmann::json;

/// Exit codes of migrate, mosctl, mosps and mostrace (without a command). mosrun has env(1)'s instead.
enum ExitCode : int {
  kExitDone = 0,
  kExitNotDone = 1,       ///< asked for and refused, or failed: the reason is on standard error
  kExitUsage = 2,         ///< the command line is wrong
  kExitNoDaemon = 3,      ///< no mosixd answers on this machine
  kExitNoProcess = 4,     ///< no such process, or it has ended
  kExitNotPermitted = 5,  ///< the process belongs to another user
  kExitUnknownNode = 6,   ///< no node of that name, number or address in the map
  kExitBadReply = 7,      ///< mosixd broke off or answered something that is not a reply
};

/// An Error with how the tool shall end because of it.
struct Failure {
  ExitCode exit = kExitNotDone;
  Error error;
};
template <class T>
using Answer = tl::expected<T, Failure>;

/// One connection to mosixd.
class ControlClient {
 public:
  /// Connects to the user's own mosixd, or to the one that serves the machine.
  static Answer<ControlClient> connect();

  /// Sends one request and waits for its reply, which has "ok":true. A reply with "ok":false is a Failure
  /// with the daemon's sentence.
  Answer<Json> ask(const Json& request, int limit_ms);
  /// The next line of a stream; kExitBadReply with code EPIPE at its end, ETIMEDOUT after the limit (< 0:
  /// none).
  Answer<std::string> next_line(int limit_ms);
  int fd() const { return socket_.get(); }
  /// True when next_line() would return without a read.
  bool has_buffered_line() const { return buffer_.find('\n') != std::string::npos; }

 private:
  explicit ControlClient(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
  std::string buffer_;
};

/// One request on a connection of its own.
Answer<Json> ask_daemon(const Json& request, int limit_ms);

/// How long mosixd may take for an ordinary question, and for a move (its stages have limits of their own).
inline constexpr int kAskLimitMs = 15'000;
inline constexpr int kMoveLimitMs = 180'000;
/// The longest reply line: some 10,000 processes at 400 bytes each.
inline constexpr size_t kMaxReplyBytes = 4 << 20;

/// Prints "TOOL: sentence" on standard error and returns the exit code.
int report_failure(std::string_view tool, const Failure& failure);
Failure usage_failure(std::string text);

/// Fields of a reply, whatever their type really is: the fallback if absent or of another kind.
std::string field_text(const Json& object, const char* name, std::string_view fallback = "");
double field_number(const Json& object, const char* name, double fallback = 0);
int64_t field_integer(const Json& object, const char* name, int64_t fallback = 0);
bool field_flag(const Json& object, const char* name);
/// The array of that name; empty if there is none.
Json field_array(const Json& object, const char* name);

/// The text with control characters and broken UTF-8 replaced, fit for a terminal.
std::string printable(std::string_view text);
/// Reply text for a program: one line, whatever it holds.
std::string json_text(const Json& value, int indent = -1);

/// A table with a heading: columns padded to their widest cell, numbers (`>` before the heading) to the
/// right.
void print_table(const std::vector<std::string>& headings, const std::vector<std::vector<std::string>>& rows);
/// "3.2s", "4m05s", "2h10m", "3d04h".
std::string duration_text(double seconds);
/// "home 3 times: ioctl (2), mmap of shared memory": what has brought processes home, the most frequent first, of a
/// reply's "brought_home"; empty if nothing has.
std::string homecomings_text(const Json& reply);
/// "512K", "3.4M", "1.2G".
std::string bytes_text(double bytes);

/// A positive number of a process, nothing else; 0 if the text is not one.
int parse_pid(std::string_view text);

/// "mosrun (libmosix) 0.1.0".
std::string version_text(std::string_view tool);

}  // namespace mosix
