// mosixd's orders, and the frame around every move: one operation a process at a time, its outcome told to
// whoever asked and to the history. Part of Custodian; each order runs in a thread of its own.
#include <malloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "deputy/custodian.h"
#include "deputy/homecoming.h"
#include "deputy/movable.h"
#include "deputy/move_out.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

constexpr auto kBusyLimit = std::chrono::seconds(60);

std::string process_text(int pid) { return "process " + std::to_string(pid); }

}  // namespace

void Custodian::serve(LinkOrder order) {
  if (order.op == "dialed") return dialed(std::move(order));
  if (order.op == "trace") return set_trace(order);
  if (order.op == "migrate") return migrate(std::move(order));
  if (order.op == "watch_exec") return watch_exec(std::move(order));
  if (order.op == "all_home") return all_home(std::move(order));
  link_.reply_failed(order.id, Error{ENOSYS, "the custodian does not know the order \"" + order.op + "\""});
}

// --- one operation at a time ------------------------------------------------------------------------

bool Custodian::claim(const Record& record, const std::string& operation, Error* busy_with) {
  std::lock_guard lock(mutex_);
  if (record->ended) {
    if (busy_with != nullptr) *busy_with = {ESRCH, process_text(record->pid) + " has ended"};
    return false;
  }
  if (!record->busy.empty()) {
    if (busy_with != nullptr) *busy_with = {EBUSY, process_text(record->pid) + " is busy: " + record->busy};
    return false;
  }
  record->busy = operation;
  return true;
}

/// From now on the next operation may begin; settle() must follow.
void Custodian::unclaim(const Record& record) {
  std::lock_guard lock(mutex_);
  record->busy.clear();
  changed_.notify_all();
}

/// What had to wait for the end of an operation: dropping a process that has ended, the loss of a node, a
/// wish to go home. If another operation has begun meanwhile, its own end sees to it.
void Custodian::settle(const Record& record) {
  bool ended;
  std::optional<Wish> wish;
  {
    std::lock_guard lock(mutex_);
    if (record->held()) return;
    ended = record->ended;
    if (ended && awaits_last_word(*record)) return;
    if (auto at = wants_home_.find(record->pid); at != wants_home_.end()) {
      wish = at->second;
      wants_home_.erase(at);
    }
  }
  if (ended) return drop(record);
  Place place = record->place();
  if (place.node && !place.node->alive()) {
    if (claim(record, place.node->name() + " is gone")) lose_process(record, place.node->name());
    return;
  }
  if (place.node && wish) return bring_home_because(record, *wish);
  drop_if_unmanaged(record);
}

uint32_t Custodian::next_epoch(const Record& record) {
  std::lock_guard lock(mutex_);
  return ++record->epoch;
}

// --- moves ------------------------------------------------------------------------------------------

void Custodian::migrate(LinkOrder order) {
  Result<Record> record = find_or_create(order.pid);
  if (!record) return link_.reply_failed(order.id, record.error());
  {
    std::lock_guard lock(mutex_);
    ++(*record)->orders;
  }
  Error busy;
  if (!claim(*record, "it is being moved to " + order.to, &busy)) return link_.reply_failed(order.id, busy);
  if (order.placed) {
    std::lock_guard lock(mutex_);
    (*record)->hold_node = order.to == "home" ? "" : order.to;
    (*record)->require = order.require;
  }
  auto shared = std::make_shared<LinkOrder>(std::move(order));
  in_thread([this, record = *record, shared] { move(record, *shared); });
}

void Custodian::move(const Record& record, const LinkOrder& order) {
  std::string from = record->where();
  const Cause cause{order.placed ? "placed there by mosrun" : "moved there by request"};
  Result<MoveReport> moved = move_to(record, order.to, cause);
  finish_move(record, from, order.to, moved, cause);
  if (moved)
    link_.reply_moved(order.id, record->pid, from, order.to, *moved);
  else
    link_.reply_failed(order.id, moved.error());
  settle(record);
}

/// Some instants cannot be moved at, and pass: a handler on top of a clock reading, a write in its middle. Who else has
/// to come along is found out by trying.
Result<MoveReport> Custodian::move_to(const Record& record, const std::string& target, const Cause& cause) {
  constexpr int kAttempts = 10;
  std::set<int> together{record->pid};
  for (int attempt = 1;; ++attempt) {
    size_t known = together.size();
    Result<MoveReport> moved = move_together(record, together, target, cause);
    if (moved || moved.error().code != EAGAIN || attempt == kAttempts) return moved;
    if (together.size() == known) std::this_thread::sleep_for(std::chrono::milliseconds(1 << attempt));
  }
}

Result<MoveReport> Custodian::try_move_to(const Record& record, const std::string& target, MoveGroup& group) {
  Place place = record->place();
  if (target == record->where()) return MoveReport{};
  if (place.node)
    if (std::string tracer = foreign_tracer(record->pid); !tracer.empty())
      return fail(EBUSY, tracer + " and cannot be moved before that has let go");
  if (target == "home" || target == options_.node_name) {
    if (!place.node) return MoveReport{};
    return bring_home(*record, next_epoch(record), group);
  }
  TRY(std::shared_ptr<AwayNode> node, node_named(target, program_of(record)));
  if (place.node) return move_on(*record, node, next_epoch(record), group);
  HeldProcess hands(*record);
  return move_out(*record, node, next_epoch(record), hands, group);
}

/// The end of a claimed operation; settle() follows once whoever asked has been answered.
void Custodian::finish_move(const Record& record, const std::string& from, const std::string& to,
                            const Result<MoveReport>& moved, const Cause& cause) {
  std::string now = record->where();
  {
    std::lock_guard lock(mutex_);
    if (moved && from != now) ++record->moves;
    record->reason = moved ? cause.reason : moved.error().message();
    ++record->untold;
  }
  std::string what = process_text(record->pid) + " (" + program_of(record) + ") from " + from + " to " + to;
  if (moved) {
    log_info(what + ": done");
    if (std::shared_ptr<AwayNode> node = record->place().node) send_traces(*node);
  } else {
    log_info(what + ": " + moved.error().message());
    // The node being gone is told by the loss of its connection, with its own sentence.
    if (moved.error().code == ENOTRECOVERABLE) kill_process(record, moved.error().what);
  }
  // Whoever hears of it may give the next order at once.
  unclaim(record);
  MoveLine line{from, to, moved ? cause.reason : moved.error().message(), moved.has_value(), cause.brought};
  announce(record, moved && from == now ? nullptr : &line);
  {
    std::lock_guard lock(mutex_);
    --record->untold;
  }
  malloc_trim(0);  // buffers of pages go back to the kernel
}

void Custodian::bring_home_because(const Record& record, const Wish& wish) {
  {
    // Wished for and, if nobody has the process, taken up in one step: an operation that ends looks for wishes.
    std::lock_guard lock(mutex_);
    if (record->ended) return;
    if (!record->busy.empty()) {
      wants_home_[record->pid] = wish;
      return;
    }
    record->busy = "it is being brought home";
  }
  in_thread([this, record, wish] {
    std::string from = record->where();
    const Cause cause{wish.reason, true};
    Result<MoveReport> moved = move_to(record, "home", cause);
    finish_move(record, from, "home", moved, cause);
    settle(record);
    if (moved && from != "home" && wish.may_return) send_back(record, from, wish.reason);
  });
}

/// It came home for a call, which is made by now or soon. Where that has left something behind that cannot go away (a
/// segment, a ring), it stays; so does one that has come home too often.
void Custodian::send_back(const Record& record, const std::string& node, const std::string& reason) {
  constexpr auto kPause = std::chrono::milliseconds(100);
  if (!may_go_back(record, reason)) return announce(record);
  auto orders = [&] {
    std::lock_guard lock(mutex_);
    return record->orders;
  };
  uint32_t before = orders();
  std::this_thread::sleep_for(kPause);
  if (orders() != before) return;  // somebody has said where it is to be
  if (!claim(record, "it is being moved back to " + node)) return;
  const Cause cause{"moved back after " + reason};
  Result<MoveReport> moved = MoveReport{};
  if (record->where() == "home") moved = move_to(record, node, cause);
  finish_move(record, "home", node, moved, cause);
  settle(record);
}

bool Custodian::may_go_back(const Record& record, const std::string& reason) {
  constexpr double kMostReturns = 3, kFadesInMs = 10'000;
  std::lock_guard lock(mutex_);
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  int64_t now_ms = now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
  record->returns -= static_cast<double>(now_ms - record->returned_ms) / kFadesInMs;
  record->returns = std::max(record->returns, 0.0);
  record->returned_ms = now_ms;
  if (record->ended) return false;
  if (record->returns <= kMostReturns - 1) {
    record->returns += 1;
    return true;
  }
  record->reason = "left at home, for it came home again and again, last for " + reason;
  return false;
}

void Custodian::all_home(LinkOrder order) {
  in_thread([this, id = order.id] {
    std::vector<Record> away;
    {
      std::lock_guard lock(mutex_);
      for (auto& [pid, record] : records_)
        if (record->place().node || !record->busy.empty()) away.push_back(record);
    }
    int left = 0;
    for (const Record& record : away) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, kBusyLimit, [&] { return record->busy.empty(); });
      }
      if (!record->place().node || !claim(record, "it is being brought home")) continue;
      std::string from = record->where();
      const Cause cause{"everybody was called home"};
      Result<MoveReport> moved = move_to(record, "home", cause);
      finish_move(record, from, "home", moved, cause);
      if (!moved && moved.error().code != ESRCH) ++left;
      settle(record);
    }
    if (left == 0) return link_.reply_ok(id, 0);
    link_.reply_failed(id, Error{EBUSY, std::to_string(left) + " processes could not be brought home"});
  });
}

// --- traces -----------------------------------------------------------------------------------------

void Custodian::set_trace(const LinkOrder& order) {
  std::vector<std::shared_ptr<AwayNode>> nodes;
  {
    std::lock_guard lock(mutex_);
    if (order.on)
      traced_[order.pid] = order.stacks;
    else
      traced_.erase(order.pid);
    for (auto& [name, node] : nodes_) nodes.push_back(node);
  }
  TraceOrder message{order.pid, static_cast<uint8_t>(order.on), static_cast<uint8_t>(order.stacks)};
  for (auto& node : nodes) (void)node->send(ControlType::kTraceOn, message);
  if (order.id != 0) link_.reply_ok(order.id, order.pid);
}

/// A process that has just come there is not traced yet.
void Custodian::send_traces(AwayNode& node) {
  std::map<int, bool> traced;
  {
    std::lock_guard lock(mutex_);
    traced = traced_;
  }
  for (auto [pid, stacks] : traced)
    (void)node.send(ControlType::kTraceOn, TraceOrder{pid, 1, static_cast<uint8_t>(stacks)});
}

}  // namespace mosix
