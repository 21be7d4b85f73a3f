#include "tools/tool_common.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "libmosix/common/net.h"
#include "libmosix/common/paths.h"

namespace mosix {
namespace {

constexpr char kSystemSocket[] = "/run/mosix/mosixd.sock";

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

/// Which way a tool ends for what mosixd says went wrong.
ExitCode exit_for(int code) {
  switch (code) {
    case ESRCH:
      return kExitNoProcess;
    case EPERM:
      return kExitNotPermitted;
    case ENOENT:
    case ENODEV:
      return kExitUnknownNode;
    default:
      return kExitNotDone;
  }
}

Failure no_daemon(const std::string& path, int code) {
  std::string why =
      code == ENOENT || code == ECONNREFUSED
          ? fmt::format("no mosixd runs here (nobody listens at {}); start one with `mosixd`", path)
          : fmt::format("no mosixd reached at {}: {}", path, strerror(code));
  return Failure{kExitNoDaemon, Error{0, why}};
}

Failure bad_reply(int code, std::string what) { return Failure{kExitBadReply, Error{code, std::move(what)}}; }

}  // namespace

Answer<ControlClient> ControlClient::connect() {
  std::string own = control_socket_path();
  auto socket = dial_unix(own);
  int code = socket ? 0 : socket.error().code;
  if (!socket && getenv("MOSIX_RUN_DIR") == nullptr && own != kSystemSocket)
    socket = dial_unix(kSystemSocket);
  if (!socket) return tl::unexpected(no_daemon(own, code));
  return ControlClient(std::move(*socket));
}

Answer<std::string> ControlClient::next_line(int limit_ms) {
  int64_t deadline = now_ms() + limit_ms;
  for (;;) {
    if (size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (buffer_.size() > kMaxReplyBytes) return tl::unexpected(bad_reply(EMSGSIZE, "reply of mosixd"));
    int64_t left = limit_ms < 0 ? -1 : std::max<int64_t>(deadline - now_ms(), 0);
    pollfd item{socket_.get(), POLLIN, 0};
    int ready = poll(&item, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) return tl::unexpected(bad_reply(EINTR, "wait for mosixd"));
    if (ready == 0) return tl::unexpected(bad_reply(ETIMEDOUT, "wait for mosixd"));
    char part[65536];
    ssize_t got = recv(socket_.get(), part, sizeof part, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return tl::unexpected(bad_reply(errno, "receive from mosixd"));
    if (got == 0) return tl::unexpected(bad_reply(EPIPE, "mosixd closed the connection"));
    buffer_.append(part, static_cast<size_t>(got));
  }
}

Answer<Json> ControlClient::ask(const Json& request, int limit_ms) {
  std::string line = json_text(request) + "\n";
  if (auto sent = send_fully(socket_.get(), line.data(), line.size()); !sent)
    return tl::unexpected(bad_reply(sent.error().code, "send to mosixd"));
  auto text = next_line(limit_ms);
  while (!text && text.error().error.code == EINTR) text = next_line(limit_ms);
  if (!text) return tl::unexpected(text.error());
  Json reply = Json::parse(*text, nullptr, false);
  if (!reply.is_object() || !reply.contains("ok") || !reply["ok"].is_boolean())
    return tl::unexpected(bad_reply(0, "mosixd answered something that is not a reply"));
  if (field_flag(reply, "ok")) return reply;
  int code = static_cast<int>(field_integer(reply, "code"));
  std::string why = field_text(reply, "error");
  // The daemon's sentence is complete; errno only fills in where it said nothing.
  if (why.empty()) why = code != 0 ? strerror(code) : "mosixd refused and gave no reason";
  return tl::unexpected(Failure{exit_for(code), Error{code, why}});
}

Answer<Json> ask_daemon(const Json& request, int limit_ms) {
  auto client = ControlClient::connect();
  if (!client) return tl::unexpected(client.error());
  return client->ask(request, limit_ms);
}

int report_failure(std::string_view tool, const Failure& failure) {
  // Codes of refusals are part of the daemon's sentence already; those of our own connection are not.
  std::string text = failure.exit == kExitBadReply ? failure.error.message() : failure.error.what;
  fmt::print(stderr, "{}: {}\n", tool, printable(text));
  return failure.exit;
}

Failure usage_failure(std::string text) { return Failure{kExitUsage, Error{0, std::move(text)}}; }

std::string field_text(const Json& object, const char* name, std::string_view fallback) {
  auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string(fallback);
}

double field_number(const Json& object, const char* name, double fallback) {
  auto found = object.find(name);
  return found != object.end() && found->is_number() ? found->get<double>() : fallback;
}

int64_t field_integer(const Json& object, const char* name, int64_t fallback) {
  auto found = object.find(name);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : fallback;
}

bool field_flag(const Json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

Json field_array(const Json& object, const char* name) {
  auto found = object.find(name);
  return found != object.end() && found->is_array() ? *found : Json::array();
}

std::string json_text(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string printable(std::string_view text) {
  // A round trip through the JSON writer replaces broken UTF-8; what is left are the control characters.
  std::string clean = Json::parse(json_text(Json(std::string(text))), nullptr, false).get<std::string>();
  for (char& c : clean)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = c == '\n' || c == '\t' ? ' ' : '?';
  return clean;
}

namespace {
/// Columns that the text takes, counting a UTF-8 sequence as one.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, size_t width, bool right) {
  std::string space(width > width_of(text) ? width - width_of(text) : 0, ' ');
  return right ? space + text : text + space;
}
}  // namespace

void print_table(const std::vector<std::string>& headings,
                 const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  std::vector<bool> right;
  std::vector<std::string> names;
  for (const std::string& heading : headings) {
    right.push_back(heading.starts_with('>'));
    names.push_back(right.back() ? heading.substr(1) : heading);
    widths.push_back(width_of(names.back()));
  }
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i)
      widths[i] = std::max(widths[i], width_of(row[i]));
  auto print_row = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i)
      line += (i == 0 ? "" : "  ") + padded(row[i], widths[i], right[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  };
  print_row(names);
  for (const auto& row : rows) print_row(row);
}

std::string duration_text(double seconds) {
  if (seconds < 0) seconds = 0;
  auto whole = static_cast<int64_t>(seconds);
  if (seconds < 60) return fmt::format("{:.1f}s", seconds);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

std::string bytes_text(double bytes) {
  if (bytes < 1024) return fmt::format("{:.0f}", bytes);
  const char* unit = "KMGT";
  bytes /= 1024;
  for (; bytes >= 1024 && unit[1] != 0; ++unit) bytes /= 1024;
  return fmt::format("{:.1f}{}", bytes, *unit);
}

int parse_pid(std::string_view text) {
  int pid = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  return error == std::errc{} && end == text.data() + text.size() && pid > 0 ? pid : 0;
}

std::string version_text(std::string_view tool) {
  return fmt::format("{} (libmosix) {}", tool, MOSIX_VERSION);
}

std::string homecomings_text(const Json& reply) {
  auto told = reply.find("brought_home");
  if (told == reply.end() || !told->is_object()) return "";
  std::vector<std::pair<int64_t, std::string>> reasons;
  int64_t sum = 0;
  for (const auto& [reason, times] : told->items()) {
    if (!times.is_number_integer()) continue;
    reasons.emplace_back(times.get<int64_t>(), reason);
    sum += times.get<int64_t>();
  }
  if (sum == 0) return "";
  std::sort(reasons.begin(), reasons.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::string text;
  for (const auto& [times, reason] : reasons) {
    text += (text.empty() ? "" : ", ") + printable(reason);
    if (times > 1) text += " (" + std::to_string(times) + ")";
  }
  return "home " + std::to_string(sum) + (sum == 1 ? " time: " : " times: ") + text;
}

}  // namespace mosix
