// Moves of processes that share memory: one order moves all of them. Part of Custodian.
//
// The operation that has claimed one of them claims the others too. Two that begin at the same time, each for a process
// of the same group, would wait for one another; so an operation that has nothing in its hands yet lets itself be taken
// along by one that has found the whole group free.
#include <thread>

#include "deputy/custodian.h"
#include "libmosix/common/log.h"

namespace mosix {
namespace {

constexpr auto kGatherLimit = std::chrono::seconds(10);

/// What the others are told, and counted by.
std::string reason_of_companions(const std::string& reason) {
  return reason + " (by a process that it shares memory with)";
}

}  // namespace

/// `pids`: whoever is known to share memory with it, itself among them. If that was not all, EAGAIN, and it is more
/// afterwards.
Result<MoveReport> Custodian::move_together(const Record& record, std::set<int>& pids,
                                            const std::string& target, const Cause& cause) {
  // A node can name any number. Only who is where this one is shares memory with it; children are known before their
  // parents stand still.
  std::shared_ptr<AwayNode> node = record->place().node;
  std::vector<Record> others;
  for (auto at = pids.begin(); at != pids.end();) {
    Record other = record;
    if (*at != record->pid) other = node ? find(*at) : find_or_create(*at).value_or(nullptr);
    if (!other || other->place().node != node) {  // it has ended meanwhile, or is no companion
      at = pids.erase(at);
      continue;
    }
    if (other != record) others.push_back(other);
    ++at;
  }
  std::vector<Companion> companions;
  if (!others.empty()) {
    TRY(companions, gather(record, others));
    // Another has taken it there with its own group.
    if (companions.empty()) return try_again_unless_there(record, target);
  }
  pids = {record->pid};
  for (const Companion& companion : companions) pids.insert(companion.record->pid);
  MoveGroup group(pids, files_);
  std::vector<std::string> from;
  std::vector<Result<MoveReport>> moved;
  std::vector<std::thread> threads;
  for (const Companion& companion : companions) {
    from.push_back(companion.record->where());
    moved.emplace_back(MoveReport{});
  }
  for (size_t i = 0; i < companions.size(); ++i)
    threads.emplace_back([&, i] {
      moved[i] = try_move_to(companions[i].record, target, group);
      close_membership(group, companions[i].record->pid, moved[i]);
    });
  Result<MoveReport> own = try_move_to(record, target, group);
  close_membership(group, record->pid, own);
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < companions.size(); ++i)
    end_companion(companions[i], from[i], target, moved[i],
                  {reason_of_companions(cause.reason), cause.brought});
  for (int pid : group.missing()) pids.insert(pid);
  return own;
}

/// Whoever has nothing to do never came to the places where the others wait.
void Custodian::close_membership(MoveGroup& group, int pid, const Result<MoveReport>& moved) {
  if (moved)
    group.leave(pid);
  else
    group.give_up(pid, moved.error());
}

Result<MoveReport> Custodian::try_again_unless_there(const Record& record, const std::string& target) {
  bool home = target == "home" || target == options_.node_name;
  std::string now = record->where();
  if (now == target || (home && now == "home")) return MoveReport{};
  return fail(EAGAIN, "a process that it shares memory with could not be moved");
}

/// Claims the others, all or none. Empty: another operation has had the record, and is over.
Result<std::vector<Custodian::Companion>> Custodian::gather(const Record& record,
                                                            const std::vector<Record>& others) {
  using Gathering = ProcessRecord::Gathering;
  std::unique_lock lock(mutex_);
  auto free = [](const Record& other) {
    return other->ended || other->busy.empty() || other->gathering == Gathering::kWaits;
  };
  auto all_free = [&] { return std::all_of(others.begin(), others.end(), free); };
  record->gathering = Gathering::kWaits;
  changed_.notify_all();
  bool in_time = changed_.wait_for(lock, kGatherLimit,
                                   [&] { return record->gathering == Gathering::kTaken || all_free(); });
  if (record->gathering == Gathering::kTaken) {
    changed_.wait(lock, [&] { return record->gathering != Gathering::kTaken; });
    return std::vector<Companion>{};
  }
  record->gathering = Gathering::kNo;
  if (!in_time) return fail(EBUSY, "a process that it shares memory with is busy");
  std::vector<Companion> companions;
  for (const Record& other : others) {
    if (other->ended) continue;
    companions.push_back({other, !other->busy.empty()});
    if (companions.back().was_busy)
      other->gathering = Gathering::kTaken;
    else
      other->busy = "it is being moved with process " + std::to_string(record->pid);
  }
  changed_.notify_all();
  if (companions.empty()) return fail(EAGAIN, "those that it shared memory with have ended");
  return companions;
}

/// One that was taken along from an operation of its own tells of it there.
void Custodian::end_companion(const Companion& companion, const std::string& from, const std::string& to,
                              const Result<MoveReport>& moved, const Cause& cause) {
  const Record& record = companion.record;
  if (!companion.was_busy && !moved && moved.error().code == EAGAIN) {
    unclaim(record);  // it is tried again
    return settle(record);
  }
  if (!companion.was_busy) {
    finish_move(record, from, to, moved, cause);
    return settle(record);
  }
  if (!moved && moved.error().code == ENOTRECOVERABLE) kill_process(record, moved.error().what);
  std::lock_guard lock(mutex_);
  record->gathering = ProcessRecord::Gathering::kNo;
  changed_.notify_all();
}

}  // namespace mosix
