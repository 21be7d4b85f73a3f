#include "deputy/link.h"

#include <nlohmann/json.hpp>

#include "libmosix/common/net.h"

namespace mosix {
namespace {

using Json = nlohmann::json;

std::string text_of(const Json& object, const char* key) {
  auto at = object.find(key);
  return at != object.end() && at->is_string() ? at->get<std::string>() : "";
}
int64_t number_of(const Json& object, const char* key) {
  auto at = object.find(key);
  return at != object.end() && at->is_number_integer() ? at->get<int64_t>() : 0;
}
bool flag_of(const Json& object, const char* key) {
  auto at = object.find(key);
  return at != object.end() && at->is_boolean() && at->get<bool>();
}

std::string line_of(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

const char* name_of(AnsweredBy who) {
  switch (who) {
    case AnsweredBy::kHere:
      return "here";
    case AnsweredBy::kHome:
      return "home";
    case AnsweredBy::kCache:
      return "cache";
    case AnsweredBy::kPosted:
      return "posted";
    case AnsweredBy::kSplit:
      return "split";
    case AnsweredBy::kBroughtHome:
      return "brought_home";
  }
  return "?";
}

/// A message is bounded; a stack or a text that would not fit is cut.
constexpr size_t kMaxTraceText = 16 << 10;
constexpr size_t kMaxFrames = 64;

}  // namespace

Result<LinkOrder> Link::receive() {
  Result<LinkMessage> message = receive_link(socket_.get());
  if (!message) {
    alive_ = false;
    return fail(std::move(message.error()));
  }
  Json object = Json::parse(message->text, nullptr, false);
  if (!object.is_object()) return fail(EBADMSG, "an order that is not a JSON object");
  LinkOrder order;
  order.op = text_of(object, "op");
  order.id = number_of(object, "id");
  order.pid = static_cast<int>(number_of(object, "pid"));
  order.node = text_of(object, "node");
  order.to = text_of(object, "to");
  order.require = flag_of(object, "require");
  order.hold = flag_of(object, "hold");
  order.placed = flag_of(object, "placed");
  order.on = flag_of(object, "on");
  order.stacks = flag_of(object, "stacks");
  order.ok = flag_of(object, "ok");
  order.code = static_cast<int>(number_of(object, "code"));
  order.error = text_of(object, "error");
  order.connection = std::move(message->fd);
  return order;
}

void Link::send(const std::string& text) {
  std::lock_guard lock(mutex_);
  if (alive_ && !send_link(socket_.get(), text)) alive_ = false;
}

void Link::reply_ok(int64_t id, int pid) {
  send(line_of(Json{{"event", "reply"}, {"id", id}, {"ok", true}, {"pid", pid}}));
}

void Link::reply_moved(int64_t id, int pid, const std::string& from, const std::string& to,
                       const MoveReport& report) {
  send(line_of(Json{{"event", "reply"},
                    {"id", id},
                    {"ok", true},
                    {"pid", pid},
                    {"from", from},
                    {"to", to},
                    {"freeze_ms", report.freeze_ms},
                    {"total_ms", report.total_ms},
                    {"bytes", report.bytes}}));
}

void Link::reply_failed(int64_t id, const Error& error) {
  send(line_of(Json{{"event", "reply"},
                    {"id", id},
                    {"ok", false},
                    {"code", error.code == 0 ? ENOTSUP : error.code},
                    {"error", error.what}}));
}

void Link::dial(int64_t id, const std::string& node, const std::string& family, const std::string& program) {
  send(
      line_of(Json{{"event", "dial"}, {"id", id}, {"node", node}, {"family", family}, {"program", program}}));
}

void Link::process(const ProcessNews& news, const MoveLine* line) {
  Json event{{"event", "process"},
             {"pid", news.pid},
             {"program", news.program},
             {"where", news.where},
             {"moves", news.moves},
             {"reason", news.reason},
             {"cpu_away_us", news.cpu_away_us},
             {"calls", news.calls}};
  if (news.parent != 0) event["parent"] = news.parent;
  if (line != nullptr)
    event["history"] = Json{{"time", time(nullptr)}, {"from", line->from},       {"to", line->to},
                            {"ok", line->ok},        {"brought", line->brought}, {"reason", line->reason}};
  send(line_of(event));
}

void Link::gone(int pid) { send(line_of(Json{{"event", "gone"}, {"pid", pid}})); }

void Link::trace(const TraceEvent& event) {
  Json stack = Json::array();
  for (const std::string& frame : event.stack)
    if (stack.size() < kMaxFrames) stack.push_back(frame.substr(0, 256));
  send(line_of(Json{{"event", "trace"},
                    {"pid", event.pid},
                    {"tid", event.tid},
                    {"number", event.number},
                    {"args", event.args},
                    {"result", event.result},
                    {"answered_by", name_of(event.answered_by)},
                    {"started_ns", event.started_ns},
                    {"round_trip_ns", event.round_trip_ns},
                    {"home_ns", event.home_ns},
                    {"text", event.text.substr(0, kMaxTraceText)},
                    {"result_text", event.result_text.substr(0, kMaxTraceText)},
                    {"stack", stack}}));
}

}  // namespace mosix
