#include "cluster/home_side.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include "cluster/spawn.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

/// Parents followed upwards in search of a managed ancestor; deeper trees start a family of their own.
constexpr int kMaxAncestors = 64;

std::string how_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "has ended"
                                  : fmt::format("has failed with status {}", WEXITSTATUS(status));
}

bool is_move(const Json& message) { return text_field(message, "op") != "all_home"; }

Json row_of(const Family& family, const ManagedProcess& process, const std::string& own_name) {
  return Json{{"pid", process.pid},
              {"program", process.program},
              {"uid", family.uid},
              {"family", family.name},
              {"home", own_name},
              {"where", process.where},
              {"moves", process.moves},
              {"reason", process.reason},
              {"cpu_away_ms", process.cpu_away_us / 1000},
              {"calls", process.calls},
              {"calls_per_s", process.calls_per_s},
              {"since_s", (steady_ms() - process.since_ms) / 1000}};
}

/// What an order needs of the request, and nothing else that a client may have written.
Json order_fields(const Json& request, const char* op, std::initializer_list<const char*> keys) {
  Json order{{"op", op}};
  for (const char* key : keys)
    if (auto at = request.find(key); at != request.end() && at->is_primitive()) order[key] = *at;
  return order;
}

}  // namespace

void HomeSide::run(const Json& request, uint32_t asker, Reply reply) {
  Result<ProcessFacts> facts = check_order(static_cast<int>(number_field(request, "pid")), asker);
  if (!facts) return reply(failure(facts.error().code, facts.error().what));
  std::string wanted = text_field(request, "node");
  const MapNode* node = context_.map.find(wanted);
  if (node == nullptr) return reply(context_.no_such_node(wanted));
  if (node->id == context_.own_id) return reply(Json{{"ok", true}, {"pid", facts->pid}, {"where", "home"}});
  Json message = order_fields(request, "watch_exec", {"pid", "require", "hold"});
  message["node"] = node->name;
  give(Order{.message = message, .pid = facts->pid, .reply = std::move(reply)}, *facts);
}

void HomeSide::migrate(const Json& request, uint32_t asker, Reply reply) {
  Result<ProcessFacts> facts = check_order(static_cast<int>(number_field(request, "pid")), asker);
  if (!facts) return reply(failure(facts.error().code, facts.error().what));
  bool placed = text_field(request, "op") == "place";
  std::string wanted = text_field(request, placed ? "node" : "to");
  const MapNode* node = context_.map.find(wanted);
  bool home = wanted == "home" || (node != nullptr && node->id == context_.own_id);
  if (!home && node == nullptr) return reply(context_.no_such_node(wanted));
  if (home && families_.holding(facts->pid, facts->start_time) == nullptr)
    return reply(Json{{"ok", true},
                      {"pid", facts->pid},
                      {"from", "home"},
                      {"to", "home"},
                      {"freeze_ms", 0},
                      {"total_ms", 0},
                      {"bytes", 0}});
  Json message = order_fields(request, "migrate", {"pid", "require"});
  message["to"] = home ? "home" : node->name;
  if (placed) message["placed"] = true;
  give(Order{.message = message, .pid = facts->pid, .reply = std::move(reply)}, *facts);
}

/// Finds or starts the family, and sends.
void HomeSide::give(Order order, const ProcessFacts& facts) {
  if (context_.ending) return order.reply(failure(ESHUTDOWN, "mosixd is ending; start it again and repeat"));
  if (facts.uid == 0 && !context_.settings.allow_root_guests && text_field(order.message, "to") != "home")
    return order.reply(failure(EPERM,
                               "processes of root do not leave this node; run it as a user, or set "
                               "allow_root_guests = true in mosix.toml on all nodes"));
  if (geteuid() != 0 && facts.uid != geteuid())
    return order.reply(failure(
        EPERM, fmt::format("this mosixd runs as uid {} and manages that user's processes only", geteuid())));
  accounts_.ordered(facts);
  // Twice at most: a custodian that is just ending refuses the first time.
  for (int attempt = 0; attempt < 2; ++attempt) {
    Family* family = family_of(facts);
    if (family == nullptr) {
      Result<Family*> started = start_family(facts);
      if (!started) return order.reply(failure(started.error()));
      family = *started;
    }
    ManagedProcess& claim = family->processes[facts.pid];
    if (claim.start_time != facts.start_time) {
      claim = ManagedProcess{};
      claim.pid = facts.pid;
      claim.start_time = facts.start_time;
      claim.program = facts.program;
      claim.since_ms = steady_ms();
    }
    Status sent = send(*family, order);
    if (sent) return;
    if (sent.error().code != EPIPE) return order.reply(failure(sent.error()));
    family->closing = true;
  }
  order.reply(
      failure(EPIPE, fmt::format("the custodian of process {} does not stay; its log says why", facts.pid)));
}

Status HomeSide::send(Family& family, Order order) {
  uint64_t number = next_order_++;
  Json message = order.message;
  message["id"] = number;
  TRY_VOID(family.link->send(message));
  order.limit = context_.loop->after(kOrderLimitMs, [this, name = family.name, number] {
    Family* late = families_.by_name(name);
    if (late == nullptr || late->orders.count(number) == 0) return;
    Order expired = std::move(late->orders[number]);
    late->orders.erase(number);
    log_error(fmt::format("custodian {} has not answered an order in {} s", late->custodian_pid,
                          kOrderLimitMs / 1000));
    expired.reply(failure(ETIMEDOUT, "the custodian of the process does not answer; it may have hung"));
  });
  family.orders[number] = std::move(order);
  return {};
}

Family* HomeSide::family_of(const ProcessFacts& facts) {
  ProcessFacts at = facts;
  for (int depth = 0; depth < kMaxAncestors; ++depth) {
    Family* family = families_.holding(at.pid, at.start_time);
    if (family != nullptr) return family->uid == facts.uid ? family : nullptr;
    if (at.parent <= 1) return nullptr;
    Result<ProcessFacts> parent = read_process_facts(at.parent);
    if (!parent) return nullptr;
    at = *parent;
  }
  return nullptr;
}

Result<Family*> HomeSide::start_family(const ProcessFacts& facts) {
  TRY(std::string path, component_path("mosix-custodian"));
  TRY(LinkPair pair, make_link_pair());
  // Unique over restarts of mosixd, since supervisors elsewhere may outlive one.
  std::string name = fmt::format("{}-{:x}-{}", context_.own_name, static_cast<int64_t>(wall_seconds() * 1000),
                                 next_family_++);
  SpawnOrder order;
  order.path = path;
  order.arguments = {"--family", name, "--node", context_.own_name};
  order.descriptors = {pair.theirs.get()};
  if (geteuid() == 0) order.identity = facts.owner;
  TRY(int pid, spawn_component(order));
  Family& family = families_.add(name, facts.uid);
  family.custodian_pid = pid;
  family.link = std::make_unique<Link>(
      *context_.loop, std::move(pair.ours), [this, name](const Json& event) { heard(name, event); },
      [this, name] { link_closed(name); });
  log_info(fmt::format("family {} begins with process {} ({}, uid {}), custodian {} started", name, facts.pid,
                       facts.program, facts.uid, pid));
  return &family;
}

void HomeSide::heard(const std::string& family_name, const Json& event) {
  Family* family = families_.by_name(family_name);
  if (family == nullptr) return;
  std::string kind = text_field(event, "event");
  if (kind == "reply") return heard_reply(*family, event);
  if (kind == "process") return heard_process(*family, event);
  if (kind == "gone") return heard_gone(*family, static_cast<int>(number_field(event, "pid")));
  if (kind == "dial") return dial(*family, event);
  if (kind == "trace") return traces_.deliver(*family, event);
  log_error(fmt::format("custodian {}: unknown event \"{}\"; ignored", family->custodian_pid, kind));
}

void HomeSide::heard_reply(Family& family, const Json& event) {
  auto at = family.orders.find(static_cast<uint64_t>(number_field(event, "id")));
  if (at == family.orders.end()) return;
  Order order = std::move(at->second);
  family.orders.erase(at);
  context_.loop->cancel(order.limit);
  Json answer = event;
  answer.erase("event");
  answer.erase("id");
  bool ok = flag_field(answer, "ok");
  answer["ok"] = ok;
  if (!ok && answer.find("error") == answer.end()) answer["error"] = "the custodian gave no reason";
  std::string op = text_field(order.message, "op");
  std::string to = text_field(order.message, "to", text_field(order.message, "node"));
  if (is_move(order.message)) {
    log_info(fmt::format("{} of process {} to {}: {}", op, order.pid, to,
                         ok ? "done" : text_field(answer, "error")));
    auto process = family.processes.find(order.pid);
    if (!ok && process != family.processes.end()) {
      const HistoryEntry* last = family.history.empty() ? nullptr : &family.history.back();
      bool told = last != nullptr && last->pid == order.pid && !last->ok && wall_seconds() - last->time < 1;
      if (!told)
        family.remember(
            {wall_seconds(), order.pid, process->second.where, to, text_field(answer, "error"), false});
      bool more = false;
      for (const auto& [number, other] : family.orders) more = more || other.pid == order.pid;
      if (!process->second.announced && !more) {
        family.processes.erase(process);
        accounts_.gone(order.pid);
      }
    }
  }
  order.reply(std::move(answer));
}

void HomeSide::heard_process(Family& family, const Json& event) {
  int pid = static_cast<int>(number_field(event, "pid"));
  accounts_.heard(family, event);
  homecomings_[family.uid].heard(event);
  Result<ProcessFacts> facts = read_process_facts(pid);
  if (!facts) return;  // has ended meanwhile; "gone" follows
  // A custodian runs as its user, who may have a debugger on it: it speaks for that user's processes only.
  if (facts->uid != family.uid)
    return log_error(fmt::format("custodian {} of uid {} speaks of process {} of uid {}; ignored",
                                 family.custodian_pid, family.uid, pid, facts->uid));
  auto known = family.processes.find(pid);
  std::string before = known == family.processes.end() ? "home" : known->second.where;
  ManagedProcess& process = family.update(event, facts->start_time, steady_ms(), wall_seconds());
  if (process.where != before)
    log_info(fmt::format("process {} ({}) has moved from {} to {}{}", pid, process.program, before,
                         process.where, process.reason.empty() ? "" : ": " + process.reason));
  traces_.process_seen(family, pid);
}

void HomeSide::heard_gone(Family& family, int pid) {
  accounts_.gone(pid);
  if (family.processes.erase(pid) == 0) return;
  log_debug(fmt::format("process {} of family {} has ended", pid, family.name));
  traces_.process_gone(family, pid);
}

void HomeSide::dial(Family& family, const Json& event) {
  int64_t id = number_field(event, "id");
  std::string name = text_field(event, "node");
  auto refuse = [&](int code, const std::string& why) {
    tell_dialed(family.name, id, name, fail(code, why));
  };
  const MapNode* node = context_.map.find(name);
  if (node == nullptr) return refuse(ENOENT, text_field(context_.no_such_node(name), "error"));
  if (node->id == context_.own_id) return refuse(EINVAL, name + " is this node");
  if (context_.ending) return refuse(ESHUTDOWN, "mosixd is ending");
  if (family.uid == 0 && !context_.settings.allow_root_guests)
    return refuse(EPERM, "processes of root do not leave this node (allow_root_guests in mosix.toml)");
  GuestOpen request{family.name, context_.own_name, family.uid, text_field(event, "program")};
  bool started = context_.workers.start(
      [this, loop = context_.loop, target = context_.target_of(*node), key = context_.key, request, id] {
        auto opened =
            std::make_shared<Result<OpenedFamily>>(open_family(target, key, request, kConnectTimeoutMs));
        loop->post([this, target, request, id, opened] {
          if (*opened) context_.map.learn_name(target.id, (*opened)->info.name);
          tell_dialed(request.family, id, target.name, std::move(*opened));
        });
      });
  if (!started) refuse(EAGAIN, "too many connections are being opened at once; try again");
}

void HomeSide::tell_dialed(const std::string& family_name, int64_t id, const std::string& node,
                           Result<OpenedFamily> opened) {
  Family* family = families_.by_name(family_name);
  if (family == nullptr) return;  // the connection closes, and with it the supervisor ends
  Json message{{"op", "dialed"}, {"id", id}, {"node", node}, {"ok", opened.has_value()}};
  UniqueFd connection;
  if (opened) {
    message["address"] = opened->address;
    message["kernel"] = opened->info.kernel;
    message["cpu_features"] = opened->info.cpu_features;
    message["cpus"] = opened->info.cpus;
    connection = std::move(opened->connection);
    log_info(fmt::format("{} accepts family {}", node, family_name));
  } else {
    message["code"] = opened.error().code;
    message["error"] = opened.error().what;
    log_info(fmt::format("family {} is not accepted: {}", family_name, opened.error().what));
  }
  Status sent = family->link->send(message, std::move(connection));
  if (!sent) log_error(fmt::format("custodian {}: {}", family->custodian_pid, sent.error().message()));
}

/// Its end is told by SIGCHLD; a custodian that only closed its link is forgotten a moment later.
void HomeSide::link_closed(const std::string& family_name) {
  if (Family* family = families_.by_name(family_name)) family->closing = true;
  context_.loop->after(2000, [this, family_name] { drop(family_name, false, "has closed its link"); });
}

bool HomeSide::child_ended(int pid, int status) {
  Family* family = families_.by_custodian(pid);
  if (family == nullptr) return false;
  family->link->drain();
  drop(family->name, WIFEXITED(status) && WEXITSTATUS(status) == 0, how_ended(status));
  return true;
}

void HomeSide::drop(const std::string& family_name, bool cleanly, const std::string& how) {
  Family* family = families_.by_name(family_name);
  if (family == nullptr) return;
  std::string sentence = fmt::format("custodian {} of family {} {}", family->custodian_pid, family_name, how);
  int away = family->away_count();
  if (cleanly && away == 0)
    log_info(sentence);
  else
    log_error(fmt::format("{} with {} processes away", sentence, away));
  std::map<uint64_t, Order> open = std::move(family->orders);
  traces_.family_gone(family_name);
  accounts_.family_gone(family_name);
  families_.remove(family_name);
  for (auto& [number, order] : open) {
    context_.loop->cancel(order.limit);
    if (!is_move(order.message)) {
      order.reply(Json{{"ok", away == 0}});
      continue;
    }
    Result<ProcessFacts> facts = check_order(order.pid, 0);
    if (cleanly && !order.sent_again && facts) {
      order.sent_again = true;
      give(std::move(order), *facts);
      continue;
    }
    order.reply(failure(ECONNABORTED, fmt::format("the {} while it moved process {}{}", sentence, order.pid,
                                                  facts ? "" : ", which has ended too")));
  }
}

Json HomeSide::rows(uint32_t asker) const {
  Json rows = Json::array();
  for (const auto& [name, family] : families_.all()) {
    if (asker != 0 && asker != family.uid) continue;
    for (const auto& [pid, process] : family.processes)
      if (process.announced) rows.push_back(row_of(family, process, context_.own_name));
  }
  return rows;
}

Json HomeSide::row(const ProcessFacts& facts, bool with_history) {
  Family* family = families_.holding(facts.pid, facts.start_time);
  if (family == nullptr) return nullptr;
  Json row = row_of(*family, family->processes[facts.pid], context_.own_name);
  if (with_history) row["history"] = family->history_of(facts.pid);
  return row;
}

bool HomeSide::manages(int pid) const {
  for (const auto& [name, family] : families_.all()) {
    auto at = family.processes.find(pid);
    if (at != family.processes.end() && at->second.announced) return true;
  }
  return false;
}

Homecomings HomeSide::homecomings(uint32_t uid) const {
  Homecomings sum;
  for (const auto& [owner, counts] : homecomings_)
    if (uid == 0 || uid == owner) sum.add(counts);
  return sum;
}

int HomeSide::away_count() const {
  int count = 0;
  for (const auto& [name, family] : families_.all()) count += family.away_count();
  return count;
}

void HomeSide::all_home(std::function<void()> done) {
  auto waiting = std::make_shared<size_t>(1);
  auto one_less = [waiting, done = std::move(done)] {
    if (--*waiting == 0) done();
  };
  for (auto& [name, family] : families_.all()) {
    ++*waiting;
    Order order{.message = Json{{"op", "all_home"}}, .reply = [one_less, name = name](const Json& answer) {
                  if (!flag_field(answer, "ok"))
                    log_error("family " + name +
                              " is not all home: " + text_field(answer, "error", "custodian ended"));
                  one_less();
                }};
    Status sent = send(family, std::move(order));
    if (sent) continue;
    log_error("family " + name + ": " + sent.error().message());
    one_less();
  }
  one_less();
}

}  // namespace mosix
