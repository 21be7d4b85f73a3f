// How often processes were brought home because the node where they ran could not do something for them, by reason:
// what to look at when a program is slower than it should be. In mosixd, the loop's thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cluster/families.h"

namespace mosix {

class Homecomings {
 public:
  /// A "process" event of a custodian; counts if it tells of such a move.
  void heard(const Json& event);
  void add(const Homecomings& others);
  /// {"ioctl": 3, ...}
  Json json() const;

 private:
  /// Reasons come from users' processes; what comes behind so many is counted as one.
  static constexpr size_t kMaxReasons = 64;
  static constexpr const char* kOthers = "other reasons";
  void count(const std::string& reason, uint64_t times);

  std::map<std::string, uint64_t> by_reason_;
};

}  // namespace mosix
