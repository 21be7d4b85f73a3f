// Processor time that whole process trees have spent away: what `mosrun --report` asks for. An account is opened for
// a process before it runs, and collects what custodians tell of it and of all that descend from it; its end is
// answered when the last word on each member that has ended is in. Loop's thread.
//
// Who descends from whom is settled when a process is first heard of: its custodian names the parent of one that was
// forked away (it may have ended before we could look), /proc that of one that has just given an order. One that has
// lost its parent by then is nobody's, as for time(1): no parent has waited for it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cluster/families.h"
#include "cluster/homecomings.h"
#include "cluster/process_facts.h"

namespace mosix {

/// A node tells of an ended guest at once; a custodian waits two seconds for one that does not.
inline constexpr int kAccountLimitMs = 3000;

class Accounts {
 public:
  /// One for each client of the control socket; a second one replaces the first.
  void open(uint64_t client, const ProcessFacts& root);
  void close(uint64_t client) { accounts_.erase(client); }
  /// Answers as soon as nothing is missing; after the limit with what there is.
  void settle(EventLoop& loop, uint64_t client, Reply reply);

  /// An order was given to this process, which therefore lives and waits.
  void ordered(const ProcessFacts& facts);
  /// A "process" event of a custodian.
  void heard(const Family& family, const Json& event);
  /// No more will be heard of this process, of this family.
  void gone(int pid);
  void family_gone(const std::string& family);

 private:
  struct Member {
    uint64_t start_time = 0;  ///< 0: it had ended when it was first heard of
    std::string family;       ///< "": nothing heard yet
    int64_t cpu_us = 0;
  };
  struct Account {
    int root = 0;
    uint32_t uid = 0;
    std::map<int, Member> members;  ///< those of whom more may be heard, by pid
    int64_t ended_us = 0;           ///< of all others
    uint64_t processes = 0;
    int64_t moves = 0;  ///< of the root, like what follows
    std::string where, reason;
    Homecomings homecomings;  ///< of all
    Reply asked;
    uint64_t asked_number = 0;

    bool covers(int pid) const { return pid == root || members.count(pid) != 0; }
    bool complete() const;
  };
  static void finish(Account& account, std::map<int, Member>::iterator member);
  static void answer(Account& account, bool complete);
  static void answer_if_complete(Account& account);

  std::map<uint64_t, Account> accounts_;  ///< by client
  uint64_t next_question_ = 1;
};

}  // namespace mosix
