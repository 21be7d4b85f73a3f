#include "cluster/homecomings.h"

namespace mosix {

void Homecomings::heard(const Json& event) {
  auto told = event.find("history");
  if (told == event.end() || !told->is_object() || !flag_field(*told, "ok") || !flag_field(*told, "brought"))
    return;
  constexpr size_t kLongestReason = 120;
  count(text_field(*told, "reason").substr(0, kLongestReason), 1);
}

void Homecomings::add(const Homecomings& others) {
  for (const auto& [reason, times] : others.by_reason_) count(reason, times);
}

void Homecomings::count(const std::string& reason, uint64_t times) {
  bool room = by_reason_.size() < kMaxReasons || by_reason_.count(reason) != 0;
  by_reason_[room ? reason : kOthers] += times;
}

Json Homecomings::json() const {
  Json object = Json::object();
  for (const auto& [reason, times] : by_reason_) object[reason] = times;
  return object;
}

}  // namespace mosix
