#include "cluster/away_side.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>

#include "cluster/node_info.h"
#include "cluster/process_facts.h"
#include "cluster/spawn.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

/// Names from another node end in our log, in argv and in tables: plain characters only.
bool is_plain_name(const std::string& text, size_t longest) {
  return !text.empty() && text.size() <= longest &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return isalnum(c) || c == '.' || c == '-' || c == '_'; });
}

std::string how_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "has ended"
                                  : fmt::format("has failed with status {}", WEXITSTATUS(status));
}

}  // namespace

size_t AwaySide::guest_count() const {
  size_t count = 0;
  for (const auto& [pid, supervisor] : supervisors_) count += supervisor.count();
  return count;
}

std::string AwaySide::full() const {
  return fmt::format("full, {} of {} guests (max_guests in its mosix.toml)", guest_count(),
                     context_.settings.max_guests);
}

NodeInfo AwaySide::node_info() const {
  NodeInfo info = read_node_info();
  info.name = context_.own_name;
  info.id = static_cast<uint32_t>(context_.own_id);
  info.guests = static_cast<uint32_t>(guest_count());
  info.max_guests = static_cast<uint32_t>(context_.settings.max_guests);
  return info;
}

std::optional<Refusal> AwaySide::reason_to_refuse(const GuestOpen& request) const {
  if (!is_plain_name(request.family, 128) || !is_plain_name(request.home_name, 253))
    return Refusal{0, EINVAL, "the family or node name is not plain letters, digits, '.', '-' and '_'"};
  if (context_.ending) return Refusal{0, ESHUTDOWN, "mosixd is ending"};
  if (request.uid == 0 && !context_.settings.allow_root_guests)
    return Refusal{0, EPERM, "processes of root are not let in (allow_root_guests in its mosix.toml)"};
  if (guest_count() >= static_cast<size_t>(context_.settings.max_guests)) return Refusal{0, EBUSY, full()};
  return std::nullopt;
}

void AwaySide::open(UniqueFd connection, const GuestOpen& request, const std::string& peer) {
  std::optional<Refusal> refusal = reason_to_refuse(request);
  std::string path;
  if (!refusal) {
    Result<std::string> found = component_path("mosix-supervisor");
    if (found)
      path = *found;
    else
      refusal = Refusal{0, ENOENT, found.error().message()};
  }
  int fd = connection.get();
  if (refusal) {
    log_info(fmt::format("family from {} refused: {}", peer, refusal->reason));
    Status sent = send_control(fd, static_cast<uint16_t>(ControlType::kRefuse), encode_message(*refusal));
    if (!sent) log_debug("refusal to " + peer + ": " + sent.error().message());
    return;
  }
  // Accepted before the supervisor exists, because from then on the connection is the supervisor's alone; if
  // it does not come up, home sees the connection end and takes that as a refusal.
  Status sent = send_control(fd, static_cast<uint16_t>(ControlType::kAccept), encode_message(node_info()));
  if (sent) sent = start_supervisor(std::move(connection), path, request, peer);
  if (!sent) log_error(fmt::format("family from {} not taken in: {}", peer, sent.error().message()));
}

Status AwaySide::start_supervisor(UniqueFd connection, const std::string& path, const GuestOpen& request,
                                  const std::string& peer) {
  TRY(LinkPair pair, make_link_pair());
  SpawnOrder order;
  order.path = path;
  order.arguments = {"--family", request.family,    "--home", request.home_name,
                     "--node",   context_.own_name, "--uid",  std::to_string(request.uid)};
  order.descriptors = {connection.get(), pair.theirs.get()};
  if (geteuid() == 0 && !context_.settings.guest_user.empty()) {
    TRY(order.identity, identity_of_user(context_.settings.guest_user));
  }
  TRY(int pid, spawn_component(order));
  Supervisor supervisor;
  supervisor.family = request.family;
  supervisor.home = request.home_name;
  supervisor.peer = peer;
  supervisor.uid = request.uid;
  supervisor.since_ms = steady_ms();
  supervisor.link = std::make_unique<Link>(
      *context_.loop, std::move(pair.ours), [this, pid](const Json& event) { heard(pid, event); },
      [this, pid] { link_closed(pid); });
  supervisors_[pid] = std::move(supervisor);
  log_info(fmt::format("family {} of {} ({}, uid {}) accepted, supervisor {} started", request.family,
                       request.home_name, peer, request.uid, pid));
  return {};
}

/// A supervisor asks before it takes in one guest more, by a move or by a fork.
void AwaySide::let_in(Supervisor& supervisor, int64_t question) {
  size_t now = supervisor.guests.size() + supervisor.coming;
  bool room = guest_count() - supervisor.count() + now < static_cast<size_t>(context_.settings.max_guests);
  if (room) ++supervisor.coming;
  Json answer{{"op", "let_in"}, {"id", question}, {"ok", room}};
  if (!room) answer["error"] = full();
  Status sent = supervisor.link->send(answer);
  if (!sent) log_debug("supervisor of family " + supervisor.family + ": " + sent.error().message());
}

void AwaySide::heard(int supervisor_pid, const Json& event) {
  auto at = supervisors_.find(supervisor_pid);
  if (at == supervisors_.end()) return;
  Supervisor& supervisor = at->second;
  std::string kind = text_field(event, "event");
  int pid = static_cast<int>(number_field(event, "pid"));
  if (kind == "coming") return let_in(supervisor, number_field(event, "id"));
  if (kind == "guest" || kind == "not_coming") supervisor.coming -= std::min<size_t>(1, supervisor.coming);
  if (kind == "guest") {
    Guest& guest = supervisor.guests[pid];
    if (guest.since_ms == 0) {
      guest.since_ms = steady_ms();
      log_info(fmt::format("guest {} from {} is here", pid, supervisor.home));
    }
    guest.program = text_field(event, "program", guest.program);
    guest.home = supervisor.home;
    guest.uid = static_cast<uint32_t>(number_field(event, "uid", supervisor.uid));
  } else if (kind == "gone") {
    if (supervisor.guests.erase(pid) != 0)
      log_info(fmt::format("guest {} from {} has left", pid, supervisor.home));
  } else if (kind == "not_coming") {
    return;
  } else if (kind == "want_home") {
    log_info(
        fmt::format("guest {} from {} must go home: {}", pid, supervisor.home, text_field(event, "reason")));
  } else {
    log_error(fmt::format("supervisor {}: unknown event \"{}\"; ignored", supervisor_pid, kind));
  }
}

/// Its end is told by SIGCHLD; a supervisor that only closed its link is forgotten a moment later.
void AwaySide::link_closed(int supervisor_pid) {
  context_.loop->after(2000, [this, supervisor_pid] {
    auto at = supervisors_.find(supervisor_pid);
    if (at != supervisors_.end() && at->second.link->closed()) remove(supervisor_pid, "has closed its link");
  });
}

bool AwaySide::child_ended(int pid, int status) {
  auto at = supervisors_.find(pid);
  if (at == supervisors_.end()) return false;
  at->second.link->drain();
  remove(pid, how_ended(status));
  return true;
}

void AwaySide::remove(int supervisor_pid, const std::string& how) {
  auto at = supervisors_.find(supervisor_pid);
  if (at == supervisors_.end()) return;
  log_info(fmt::format("supervisor {} of family {} {}, {} guests gone with it", supervisor_pid,
                       at->second.family, how, at->second.guests.size()));
  supervisors_.erase(at);
  if (supervisors_.empty() && when_empty_) std::exchange(when_empty_, nullptr)();
}

Json AwaySide::row_of(int pid, const Guest& guest) const {
  int64_t age_ms = steady_ms() - guest.since_ms;
  return Json{{"pid", pid},
              {"program", guest.program},
              {"uid", guest.uid},
              {"home", guest.home},
              {"where", context_.own_name},
              {"foreign", true},
              {"moves", 0},
              {"reason", ""},
              {"cpu_away_ms", 0},
              {"calls", 0},
              {"calls_per_s", 0},
              {"since_s", age_ms / 1000}};
}

Json AwaySide::rows() const {
  Json rows = Json::array();
  for (const auto& [supervisor_pid, supervisor] : supervisors_)
    for (const auto& [pid, guest] : supervisor.guests) rows.push_back(row_of(pid, guest));
  return rows;
}

Json AwaySide::row(int pid) const {
  for (const auto& [supervisor_pid, supervisor] : supervisors_) {
    auto guest = supervisor.guests.find(pid);
    if (guest != supervisor.guests.end()) return row_of(pid, guest->second);
  }
  return nullptr;
}

void AwaySide::expel(std::function<void()> done) {
  if (supervisors_.empty()) return done();
  when_empty_ = std::move(done);
  for (auto& [pid, supervisor] : supervisors_) {
    Status sent = supervisor.link->send(Json{{"op", "expel"}});
    // EPIPE: it is just ending, which SIGCHLD tells.
    if (!sent && sent.error().code != EPIPE)
      log_error(fmt::format("supervisor {}: {}", pid, sent.error().message()));
  }
}

}  // namespace mosix
