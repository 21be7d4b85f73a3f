#include "cluster/accounts.h"

#include <algorithm>

#include "libmosix/process/proc_stat.h"

namespace mosix {
namespace {

/// Parents followed upwards in search of a member.
constexpr int kMaxAncestors = 64;

template <class Covers>
bool descends(int parent, Covers&& covers) {
  for (int depth = 0; depth < kMaxAncestors && parent > 1; ++depth) {
    if (covers(parent)) return true;
    Result<ProcessFacts> facts = read_process_facts(parent);
    if (!facts) return false;
    parent = facts->parent;
  }
  return false;
}

bool runs(int pid, uint64_t start_time) {
  Result<ProcStat> stat = read_proc_stat(pid);
  return stat && stat->start_time == start_time && !stat->ended();
}

}  // namespace

void Accounts::open(uint64_t client, const ProcessFacts& root) {
  Account account;
  account.root = root.pid;
  account.uid = root.uid;
  accounts_[client] = std::move(account);
}

void Accounts::ordered(const ProcessFacts& facts) {
  for (auto& [client, account] : accounts_) {
    if (account.members.count(facts.pid) != 0 || account.uid != facts.uid) continue;
    auto covers = [&account = account](int pid) { return account.covers(pid); };
    if (!covers(facts.pid) && !descends(facts.parent, covers)) continue;
    account.members[facts.pid].start_time = facts.start_time;
    ++account.processes;
  }
}

void Accounts::heard(const Family& family, const Json& event) {
  int pid = static_cast<int>(number_field(event, "pid"));
  for (auto& [client, account] : accounts_) {
    if (account.uid != family.uid) continue;
    auto member = account.members.find(pid);
    if (member == account.members.end()) {
      Result<ProcessFacts> facts = read_process_facts(pid);
      int parent = static_cast<int>(number_field(event, "parent", facts ? facts->parent : 0));
      auto covers = [&account = account](int one) { return account.covers(one); };
      if (!covers(pid) && !descends(parent, covers)) continue;
      member = account.members.emplace(pid, Member{}).first;
      member->second.start_time = facts ? facts->start_time : 0;
      ++account.processes;
    }
    member->second.family = family.name;
    member->second.cpu_us = std::max(member->second.cpu_us, number_field(event, "cpu_away_us"));
    account.homecomings.heard(event);
    if (pid != account.root) continue;
    account.moves = number_field(event, "moves", account.moves);
    account.where = text_field(event, "where", account.where);
    account.reason = text_field(event, "reason", account.reason);
  }
}

void Accounts::gone(int pid) {
  for (auto& [client, account] : accounts_)
    if (auto member = account.members.find(pid); member != account.members.end()) finish(account, member);
}

void Accounts::family_gone(const std::string& family) {
  for (auto& [client, account] : accounts_)
    for (auto member = account.members.begin(); member != account.members.end();) {
      auto one = member++;
      if (one->second.family == family) finish(account, one);
    }
}

void Accounts::finish(Account& account, std::map<int, Member>::iterator member) {
  account.ended_us += member->second.cpu_us;
  account.members.erase(member);
  answer_if_complete(account);
}

bool Accounts::Account::complete() const {
  return std::all_of(members.begin(), members.end(),
                     [](const auto& one) { return runs(one.first, one.second.start_time); });
}

void Accounts::answer_if_complete(Account& account) {
  if (account.asked && account.complete()) answer(account, true);
}

void Accounts::answer(Account& account, bool complete) {
  int64_t sum_us = account.ended_us;
  for (const auto& [pid, member] : account.members) sum_us += member.cpu_us;
  Reply reply = std::exchange(account.asked, nullptr);
  reply(Json{{"ok", true},
             {"pid", account.root},
             {"cpu_away_us", sum_us},
             {"processes", account.processes},
             {"moves", account.moves},
             {"where", account.where},
             {"reason", account.reason},
             {"brought_home", account.homecomings.json()},
             {"complete", complete}});
}

void Accounts::settle(EventLoop& loop, uint64_t client, Reply reply) {
  auto at = accounts_.find(client);
  if (at == accounts_.end()) return reply(failure(EINVAL, "no account was opened on this connection"));
  at->second.asked = std::move(reply);
  uint64_t question = at->second.asked_number = next_question_++;
  loop.after(kAccountLimitMs, [this, client, question] {
    auto late = accounts_.find(client);
    if (late != accounts_.end() && late->second.asked && late->second.asked_number == question)
      answer(late->second, false);
  });
  answer_if_complete(at->second);
}

}  // namespace mosix
