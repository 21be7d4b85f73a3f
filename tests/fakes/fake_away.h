// Stand-ins for the two that a custodian talks to: mosixd (the link) and a supervisor (the control connection
// and the channels of the deputies). The fake supervisor keeps an image without running it, makes whatever
// calls the test wants over the deputies' channels, and gives the image back. Single-threaded: the test says
// what happens next.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libmosix/common/frame.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// What a deputy sent.
struct FakeReply {
  int64_t result = 0;
  Verdict verdict = Verdict::kDone;
  std::vector<uint8_t> data;  ///< of the one out region
  std::vector<Siginfo> signals;
};

struct FakeGuest {
  ProcessState state;
  std::map<uint64_t, Bytes> pages;       ///< by address, one page each
  std::map<uint64_t, Bytes> file_pages;  ///< pristine contents of files, likewise
  std::map<int, UniqueFd> channels;      ///< by tid
  uint32_t epoch = 0;
  uint8_t token[16] = {};
};

class FakeSupervisor {
 public:
  explicit FakeSupervisor(std::string name);
  /// The end that the custodian gets; kAccept has been said.
  UniqueFd take_connection();
  const std::string& name() const { return name_; }

  /// Next control message from the custodian, which must be of this type.
  ControlMessage expect(ControlType type);
  /// Pages before it are dropped.
  ControlMessage expect_after_pages(ControlType type);
  template <class M>
  M expect_as(ControlType type) {
    return decode_message<M>(expect(type).body).value();
  }
  template <class M>
  void send(ControlType type, const M& message) {
    send_bytes(type, encode_message(message));
  }

  /// Ask for every file's contents from now on.
  void know_no_files() { knows_files_ = false; }
  /// kReserve to kRunning. `stop_before`: the message that is not sent; the caller says something else
  /// instead.
  void receive_guest(int pid, std::optional<ControlType> stop_before = std::nullopt);
  /// kBringHome to kForget, with the state as it came.
  void give_back(int pid);
  FakeGuest& guest(int pid) { return guests_.at(pid); }
  /// A guest whose image came from another supervisor, with a token of its own.
  FakeGuest& adopt(const FakeGuest& other, uint32_t epoch);
  Reserved reserved(int pid);
  /// The remote has ended, which a supervisor always says.
  void forget(int pid) {
    auto at = guests_.find(pid);
    if (at == guests_.end()) return;
    ProcessRef gone{pid, at->second.epoch};
    guests_.erase(at);
    send(ControlType::kGone, gone);
  }
  void accept_channels(FakeGuest& guest, size_t count);
  /// Those of deputies that home has sent here, which are asked for their signals before the guest begins.
  void meet_deputies(FakeGuest& guest);
  void break_connection();

  /// A call made by the deputy `tid`. `in` lies at offset 0 of scratch, `out_bytes` of it are sent back.
  /// Pointer arguments are offsets, marked in `relocs`.
  FakeReply call(int pid, int tid, uint32_t number, std::vector<uint64_t> args, uint32_t relocs = 0,
                 const std::string& in = "", uint32_t out_bytes = 0);
  uint32_t start_call(int pid, int tid, uint32_t number, std::vector<uint64_t> args, uint32_t relocs = 0,
                      const std::string& in = "", uint32_t out_bytes = 0);
  FakeReply wait_reply(int pid, int tid);
  /// The child's pid; home is told of it (kChildBorn) by tell_birth().
  int64_t fork_untold(int pid, int tid, int slot);
  void tell_birth(int pid, int child, int slot) {
    send(ControlType::kChildBorn, ChildBorn{pid, child, slot});
  }
  int64_t fork(int pid, int tid, int slot) {
    int64_t child = fork_untold(pid, tid, slot);
    if (child > 0) tell_birth(pid, static_cast<int>(child), slot);
    return child;
  }
  void exit(int pid, int tid, int status, bool whole_group);
  /// A SIGNAL frame that comes unasked.
  Siginfo wait_signal(int pid, int tid);
  void acknowledge_signals(int pid, int tid, uint32_t number);

 private:
  void send_bytes(ControlType type, const Bytes& body);
  void send_frame(int channel, FrameType type, uint32_t sequence, uint32_t acked, const void* body,
                  size_t bytes);
  ThreadState& thread(int pid, int tid);
  void send_pages_home(FakeGuest& guest);

  std::string name_;
  UniqueFd control_, theirs_, listener_;
  std::map<int, FakeGuest> guests_;
  uint32_t sequence_ = 0;
  bool knows_files_ = true;
};

/// mosixd's end of the link, and the custodian itself as a child process.
class FakeMosixd {
 public:
  FakeMosixd(const std::string& custodian_path, std::vector<std::string> features_off = {});
  ~FakeMosixd();
  int custodian_pid() const { return pid_; }
  void add_node(FakeSupervisor& node) { nodes_[node.name()] = &node; }

  int64_t order(nlohmann::json order);
  /// The next event of this kind (and pid); others are kept. Dials are answered on the way.
  nlohmann::json wait_event(const std::string& kind, int64_t id_or_pid);
  nlohmann::json wait_reply(int64_t id) { return wait_event("reply", id); }
  void serve_dial();
  /// Waits until it has ended by itself; its exit status.
  int wait_end();

 private:
  nlohmann::json receive();
  bool answer_dial(const nlohmann::json& event);
  UniqueFd link_;
  int pid_ = -1;
  int64_t next_id_ = 1;
  std::vector<nlohmann::json> kept_;
  std::map<std::string, FakeSupervisor*> nodes_;
};

}  // namespace mosix
