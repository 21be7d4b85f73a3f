// Which calls `mostrace -e` shows: strace's expressions, with classes computed from the table of calls.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "tools/tool_common.h"

namespace mosix {

class TraceFilter {
 public:
  /// One -e expression; a later one of the same kind replaces the earlier:
  ///   [trace=][!]SET       names and classes with commas: openat,%file,network; `all`, `none`
  ///   answered=[!]SET      where: here, home, cache, posted, split, brought_home
  ///   status=[!]SET        successful, failed
  /// The error names what is not known.
  Status add(const std::string& expression);

  bool shows(const Json& event) const;

 private:
  Status add_calls(const std::string& set, bool negated);
  std::set<int64_t> calls_;
  std::set<std::string> answered_;
  std::set<std::string> status_;
  bool all_calls_ = true;
};

/// Members of a class: file, process, network, signal, desc, memory, ipc. Empty if there is no such class.
std::set<int64_t> calls_of_class(const std::string& name);

/// The call's name in an event: from the table by number, or as the event's text has it.
std::string call_name(const Json& event);
/// True for a result that is an errno.
bool is_failure(const Json& event);

}  // namespace mosix
