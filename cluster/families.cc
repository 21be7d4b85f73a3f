#include "cluster/families.h"

#include <algorithm>

namespace mosix {

void Family::remember(HistoryEntry entry) {
  history.push_back(std::move(entry));
  if (history.size() > kHistoryPerFamily) history.pop_front();
}

ManagedProcess& Family::update(const Json& event, uint64_t start_time, int64_t now_ms, double wall_time) {
  int pid = static_cast<int>(number_field(event, "pid"));
  ManagedProcess& process = processes[pid];
  if (process.start_time != start_time) process = ManagedProcess{};
  if (process.since_ms == 0) process.since_ms = now_ms;
  process.pid = pid;
  process.start_time = start_time;
  process.announced = true;
  process.program = text_field(event, "program", process.program);
  process.reason = text_field(event, "reason", process.reason);
  process.moves = number_field(event, "moves", process.moves);
  process.cpu_away_us = number_field(event, "cpu_away_us", process.cpu_away_us);
  process.count_calls(number_field(event, "calls", process.calls), now_ms);
  std::string where = text_field(event, "where", process.where);
  auto told = event.find("history");
  if (told != event.end() && told->is_object())
    remember({wall_time, pid, text_field(*told, "from"), text_field(*told, "to"), text_field(*told, "reason"),
              flag_field(*told, "ok")});
  else if (where != process.where)
    remember({wall_time, pid, process.where, where, process.reason, true});
  process.where = where;
  return process;
}

void ManagedProcess::count_calls(int64_t total, int64_t now_ms) {
  // A rate over less than half a second says more about when events come than about the program.
  constexpr int64_t kShortestMs = 500;
  calls = total;
  if (rate_since_ms != 0 && now_ms - rate_since_ms < kShortestMs && total >= rate_base) return;
  if (rate_since_ms != 0 && total >= rate_base)
    calls_per_s =
        static_cast<double>(total - rate_base) * 1000.0 / static_cast<double>(now_ms - rate_since_ms);
  rate_since_ms = now_ms;
  rate_base = total;
}

Json Family::history_of(int pid) const {
  Json list = Json::array();
  for (auto entry = history.rbegin(); entry != history.rend(); ++entry)
    if (entry->pid == pid)
      list.push_back(Json{{"time", entry->time},
                          {"from", entry->from},
                          {"to", entry->to},
                          {"ok", entry->ok},
                          {"reason", entry->reason}});
  return list;
}

int Family::away_count() const {
  return static_cast<int>(std::count_if(processes.begin(), processes.end(), [](const auto& entry) {
    return entry.second.announced && entry.second.where != "home";
  }));
}

Family& FamilyRegister::add(std::string name, uint32_t uid) {
  Family& family = families_[name];
  family.name = std::move(name);
  family.uid = uid;
  return family;
}

void FamilyRegister::remove(const std::string& name) { families_.erase(name); }

Family* FamilyRegister::by_name(const std::string& name) {
  auto at = families_.find(name);
  return at == families_.end() ? nullptr : &at->second;
}

Family* FamilyRegister::by_custodian(int pid) {
  for (auto& [name, family] : families_)
    if (family.custodian_pid == pid) return &family;
  return nullptr;
}

Family* FamilyRegister::holding(int pid, uint64_t start_time) {
  for (auto& [name, family] : families_) {
    if (family.closing) continue;
    auto at = family.processes.find(pid);
    if (at != family.processes.end() && at->second.start_time == start_time) return &family;
  }
  return nullptr;
}

}  // namespace mosix
