// The custodian: one process at home for each family of managed processes, with the user's own identity.
// Takes processes to other nodes and brings them back; watches over those that are away. Everything that
// takes time or traces runs in a thread of its own; the main thread waits for mosixd's orders, for processes
// to end, and looks at those that are away for stops by job control.
//
// Parts of the one class, in files of their own:
//   custodian.cc   main loop, register of processes, what supervisors say unasked
//   orders.cc      mosixd's orders: moves, watched execs, everybody home
//   groups.cc      moves of processes that share memory
//   files.cc       files that those that are away have mapped shared and writable
//   nodes.cc       connections to away nodes: opening them, losing them
//   execs.cc       execs at home of guests that are away
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "deputy/abort.h"
#include "deputy/away_node.h"
#include "deputy/exec_watch.h"
#include "deputy/link.h"
#include "deputy/move_out.h"
#include "deputy/record.h"

namespace mosix {

struct CustodianOptions {
  std::string family;
  std::string node_name;
  int link_fd = 3;
};

class Custodian : public AwayNode::Listener {
 public:
  explicit Custodian(CustodianOptions options);
  /// Serves until the family is empty. The exit status.
  int run();

  void heard(const std::shared_ptr<AwayNode>& node, ControlMessage message) override;
  void lost(const std::shared_ptr<AwayNode>& node) override;

 private:
  using Record = std::shared_ptr<ProcessRecord>;

  // --- custodian.cc
  Status start();
  void wait_for_events();
  void serve_link();
  bool nothing_left();
  void tick();
  void look_at_state(ProcessRecord& record);
  void end_waiting_for(int pid);
  Result<Record> find_or_create(int pid);
  Record find(int pid);
  Inheritance inheritance_from(int pid);
  void forget_child(const std::shared_ptr<AwayNode>& node, const ChildBorn& born, Inheritance inheritance);
  std::string program_of(const Record& record);
  void process_ended(int pid);
  void drop(const Record& record);
  void drop_if_unmanaged(const Record& record);
  void announce(const Record& record, const MoveLine* line = nullptr, int parent = 0);
  bool awaits_last_word(const ProcessRecord& record) const;
  void child_times_asked(const std::shared_ptr<AwayNode>& node, int pid);
  void tell_child_times(const std::shared_ptr<AwayNode>& node, int pid);
  void kill_process(const Record& record, const std::string& why);
  void wake();
  /// Runs `work` in a thread of its own; the custodian does not end before it.
  void in_thread(std::function<void()> work);
  void child_born(const std::shared_ptr<AwayNode>& node, const ChildBorn& born);
  void statistics(const GuestStatistics& figures);
  void guest_ended(const std::shared_ptr<AwayNode>& node, const ProcessRef& gone);
  void abort(const AbortOrder& order);

  // --- orders.cc
  void serve(LinkOrder order);
  void migrate(LinkOrder order);
  void move(const Record& record, const LinkOrder& order);
  /// Why a process moves, and whether because it could not stay away.
  struct Cause {
    std::string reason;
    bool brought = false;
  };
  Result<MoveReport> move_to(const Record& record, const std::string& target, const Cause& cause);
  Result<MoveReport> try_move_to(const Record& record, const std::string& target, MoveGroup& group);
  void finish_move(const Record& record, const std::string& from, const std::string& to,
                   const Result<MoveReport>& moved, const Cause& cause);
  /// A supervisor's wish.
  struct Wish {
    std::string reason;
    bool may_return = false;
  };
  void bring_home_because(const Record& record, const Wish& wish);
  void send_back(const Record& record, const std::string& node, const std::string& reason);
  bool may_go_back(const Record& record, const std::string& reason);
  void all_home(LinkOrder order);
  void set_trace(const LinkOrder& order);
  void send_traces(AwayNode& node);
  bool claim(const Record& record, const std::string& operation, Error* busy_with = nullptr);
  void unclaim(const Record& record);
  void settle(const Record& record);
  uint32_t next_epoch(const Record& record);

  // --- groups.cc
  Result<MoveReport> move_together(const Record& record, std::set<int>& pids, const std::string& target,
                                   const Cause& cause);
  struct Companion {
    Record record;
    bool was_busy = false;  ///< with an operation that waits for our end
  };
  Result<std::vector<Companion>> gather(const Record& record, const std::vector<Record>& others);
  Result<MoveReport> try_again_unless_there(const Record& record, const std::string& target);
  static void close_membership(MoveGroup& group, int pid, const Result<MoveReport>& moved);
  void end_companion(const Companion& companion, const std::string& from, const std::string& to,
                     const Result<MoveReport>& moved, const Cause& cause);
  // --- files.cc
  void bind_file(const std::shared_ptr<AwayNode>& node, const FileBind& ask);
  void file_written(const std::shared_ptr<AwayNode>& node, const FileWrite& change);
  void file_settled(const std::shared_ptr<AwayNode>& node, const FileSettle& settle);
  void recall_files();
  // --- nodes.cc
  Result<std::shared_ptr<AwayNode>> node_named(const std::string& name, const std::string& program);
  Result<UniqueFd> dial(const std::string& name, const std::string& program);
  void dialed(LinkOrder order);
  void lose_process(const Record& record, const std::string& node_name);

  // --- execs.cc
  void watch_exec(LinkOrder order);
  void exec_asked(const std::shared_ptr<AwayNode>& node, const ExecAsk& ask);
  void exec_failed(int pid);
  void follow_exec(const Record& record, const std::shared_ptr<AwayNode>& node, const ExecAsk& ask);
  /// Who wants the new program away: mosrun, whose own exec it is, or the tree that it began.
  enum class Asker { kMosrun, kTree };
  void place_new_image(const Record& record, HeldProcess& hands, const std::string& target, Asker asker);
  void stay_with_reason(const Record& record, HeldProcess& hands, const std::string& target,
                        const Error& error, Asker asker);

  CustodianOptions options_;
  Link link_;
  UniqueFd epoll_, timer_, wake_;
  UniqueFd lease_signals_;  ///< somebody opens a file that is bound to a node
  FileBindings files_;
  int64_t recalled_ms_ = 0, looked_for_unmapped_ms_ = 0;  ///< main thread
  bool ordered_ = false;                                  ///< main thread: an order has come
  bool timer_on_ = false;                                 ///< main thread
  int64_t empty_since_ms_ = 0;                            ///< main thread

  std::mutex mutex_;  ///< the registry mutex
  std::condition_variable changed_;
  std::map<int, Record> records_;
  std::map<std::string, std::shared_ptr<AwayNode>> nodes_;
  std::map<int, std::shared_ptr<ExecWatch>> watches_;
  struct EndedGuest {
    uint32_t epoch = 0;
    int64_t heard_ms = 0;
  };
  std::map<int, EndedGuest> guests_ended_;  ///< remotes that have ended, until their process has
  struct Ended {
    Inheritance inheritance;
    int64_t since_ms = 0;
  };
  std::map<int, Ended>
      lately_ended_;               ///< of which children may still be heard: they were away when they ended
  int64_t looked_for_old_ms_ = 0;  ///< ... and when those were last looked through that nothing was heard of
  /// Of processes that have ended, for parents that are away; oldest first
  std::deque<CpuReading> ended_cpu_;
  std::map<int, std::weak_ptr<AwayNode>> cpu_questions_;  ///< asked about those that are just ending
  std::map<int, Wish> wants_home_;                        ///< busy ones that a supervisor wants to send home
  std::map<int, bool> traced_;                            ///< pid (0: all) to "with stacks"
  int threads_ = 0;                                       ///< operations under way
  struct Dial {
    bool done = false;
    Result<UniqueFd> result = fail(0, "not yet");
  };
  std::map<int64_t, Dial> dials_;
  std::map<std::string, bool> dialing_;
  int64_t next_dial_ = 1;
};

}  // namespace mosix
