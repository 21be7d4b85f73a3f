#include "cluster/control_ops.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>

#include "libmosix/common/log.h"

namespace mosix {

void ControlOps::handle(const ControlPeer& peer, const Json& request, Reply reply) {
  using Operation = void (ControlOps::*)(const ControlPeer&, const Json&, Reply);
  static const std::map<std::string, Operation> operations = {
      {"status", &ControlOps::status},       {"nodes", &ControlOps::nodes},     {"run", &ControlOps::run},
      {"place", &ControlOps::migrate},       {"migrate", &ControlOps::migrate}, {"where", &ControlOps::where},
      {"processes", &ControlOps::processes}, {"why", &ControlOps::where},       {"trace", &ControlOps::trace},
      {"account", &ControlOps::account},
  };
  std::string op = text_field(request, "op");
  log_debug(fmt::format("request {} of uid {}, process {}", op, peer.uid, peer.pid));
  // The socket's mode keeps others out already; this holds if somebody loosens it.
  if (geteuid() != 0 && peer.uid != 0 && peer.uid != geteuid())
    return reply(failure(EPERM, fmt::format("this mosixd serves uid {} only", geteuid())));
  auto known = operations.find(op);
  if (known == operations.end())
    return reply(
        failure(EINVAL, op.empty() ? "the request has no \"op\"" : "unknown request \"" + op + "\""));
  (this->*known->second)(peer, request, std::move(reply));
}

void ControlOps::status(const ControlPeer& peer, const Json&, Reply reply) {
  NodeInfo info = away_.node_info();
  reply(Json{{"ok", true},
             {"node", context_.own_name},
             {"id", context_.own_id},
             {"version", MOSIX_VERSION},
             {"protocol", kProtocolVersion},
             {"pid", getpid()},
             {"uid", geteuid()},
             {"uptime_s", (steady_ms() - context_.started_ms) / 1000},
             {"guests", away_.guest_count()},
             {"max_guests", context_.settings.max_guests},
             {"away", home_.away_count()},
             {"brought_home", home_.homecomings(peer.uid).json()},
             {"adopted", adopted_.size()},
             {"kernel", info.kernel},
             {"nodes", context_.map.nodes().size()},
             {"map", context_.map.file()},
             {"settings", context_.settings.file},
             {"key_file", context_.settings.key_file},
             {"port", context_.settings.port},
             {"features_off", context_.settings.features_off},
             {"ending", context_.ending}});
}

void ControlOps::nodes(const ControlPeer&, const Json&, Reply reply) {
  poll_.ask(away_.node_info(), std::move(reply));
}

void ControlOps::run(const ControlPeer& peer, const Json& request, Reply reply) {
  home_.run(request, peer.uid, std::move(reply));
}

void ControlOps::migrate(const ControlPeer& peer, const Json& request, Reply reply) {
  home_.migrate(request, peer.uid, std::move(reply));
}

void ControlOps::processes(const ControlPeer& peer, const Json&, Reply reply) {
  Json rows = home_.rows(peer.uid);
  for (Json& row : adopted_.rows(peer.uid, [this](int pid) { return home_.manages(pid); }))
    rows.push_back(row);
  for (Json& row : away_.rows()) rows.push_back(row);
  reply(Json{{"ok", true}, {"processes", rows}});
}

/// Both `where` and `why`: the second has the history too.
void ControlOps::where(const ControlPeer& peer, const Json& request, Reply reply) {
  int pid = static_cast<int>(number_field(request, "pid"));
  bool history = text_field(request, "op") == "why";
  Result<ProcessFacts> facts = check_order(pid, peer.uid);
  Json row;
  if (facts) row = home_.row(*facts, history);
  // A guest has its home's number, which no process of this node need have.
  if (row.is_null() && !facts && facts.error().code == ESRCH) row = away_.row(pid);
  if (row.is_null() && !facts) return reply(failure(facts.error().code, facts.error().what));
  if (row.is_null()) {
    bool adopted = adopted_.has(pid);
    row = Json{
        {"pid", pid},
        {"program", facts->program},
        {"home", context_.own_name},
        {"where", "home"},
        {"moves", 0},
        {"reason", adopted ? "nobody has asked it to move" : "it was not started with mosrun, nor moved"}};
  }
  if (history && row.find("history") == row.end()) row["history"] = Json::array();
  row["ok"] = true;
  reply(std::move(row));
}

void ControlOps::account(const ControlPeer& peer, const Json& request, Reply reply) {
  if (flag_field(request, "end"))
    return home_.accounts().settle(*context_.loop, peer.client, std::move(reply));
  Result<ProcessFacts> facts = check_order(static_cast<int>(number_field(request, "pid")), peer.uid);
  if (!facts) return reply(failure(facts.error().code, facts.error().what));
  home_.accounts().open(peer.client, *facts);
  reply(Json{{"ok", true}, {"pid", facts->pid}});
}

void ControlOps::trace(const ControlPeer& peer, const Json& request, Reply reply) {
  int pid = static_cast<int>(number_field(request, "pid"));
  if (!flag_field(request, "on", true)) {
    home_.traces().unsubscribe(peer.client);
    return reply(Json{{"ok", true}});
  }
  if (pid != 0) {
    Result<ProcessFacts> facts = check_order(pid, peer.uid);
    if (!facts) return reply(failure(facts.error().code, facts.error().what));
  }
  reply(Json{{"ok", true}});
  TraceRequest wanted{pid, peer.uid, flag_field(request, "follow"), flag_field(request, "stacks")};
  home_.traces().subscribe(peer.client, wanted, [this, client = peer.client](const Json& event) {
    server_->stream(client, event);
  });
}

}  // namespace mosix
