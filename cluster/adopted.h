// Processes at home that have libmosix loaded: each announces itself with one datagram to
// run_dir()/adopt.sock, and is listed by `mosps` until it ends. The kernel attaches the sender's
// credentials; what the datagram itself says is advice (that the process is locked to its home). A lost
// datagram costs a row in a table, so the table is bounded, and what does not fit is not listed.
// Loop's thread.
#pragma once

#include <map>
#include <string>

#include "cluster/context.h"
#include "cluster/json.h"

namespace mosix {

/// Each entry costs a descriptor (a pidfd tells its end).
inline constexpr size_t kMaxAdopted = 4096;
/// One user alone cannot keep the others out.
inline constexpr size_t kMaxAdoptedPerUser = 2048;

class AdoptedTable {
 public:
  explicit AdoptedTable(Context& context) : context_(context) {}
  ~AdoptedTable();
  Status start(const std::string& path);
  void stop();

  /// Rows for processes that `managed` does not hold already.
  template <class Predicate>
  Json rows(uint32_t asker, Predicate managed) const {
    Json list = Json::array();
    for (const auto& [pid, entry] : entries_)
      if ((asker == 0 || asker == entry.uid) && !managed(pid)) list.push_back(row(pid, entry));
    return list;
  }
  bool has(int pid) const { return entries_.count(pid) != 0; }
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    UniqueFd pidfd;
    uint32_t uid = 0;
    bool locked = false;
    int64_t since_ms = 0;
  };
  void receive_some();
  void adopt(int pid, uint32_t uid, const Json& said);
  void forget(int pid);
  Json row(int pid, const Entry& entry) const;

  Context& context_;
  UniqueFd socket_;
  std::string path_;
  std::map<int, Entry> entries_;
};

}  // namespace mosix
