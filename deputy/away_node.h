// One away node as this family sees it: the control connection to the family's supervisor there. A reader
// thread takes what comes; anybody may send.
//
// Messages about a process that is being moved go to that operation's mailbox; everything else goes to the
// listener in the reader's thread, which must be quick about it.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "deputy/mailbox.h"
#include "libmosix/common/unique_fd.h"

struct iovec;

namespace mosix {

class AwayNode : public std::enable_shared_from_this<AwayNode> {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void heard(const std::shared_ptr<AwayNode>& node, ControlMessage message) = 0;
    virtual void lost(const std::shared_ptr<AwayNode>& node) = 0;
  };

  /// `connection` is authenticated and accepted; `listener` outlives every node.
  static Result<std::shared_ptr<AwayNode>> start(std::string name, UniqueFd connection, Listener& listener);
  AwayNode(std::string name, UniqueFd connection, uint32_t address, Listener& listener)
      : name_(std::move(name)), connection_(std::move(connection)), address_(address), listener_(listener) {}

  const std::string& name() const { return name_; }
  uint32_t address() const { return address_; }  ///< IPv4, network order
  bool alive() const { return alive_; }

  template <class M>
  Status send(ControlType type, const M& message) {
    return send_bytes(type, encode_message(message));
  }
  /// Whole control messages that the caller has framed; the array is used up.
  Status send_framed(iovec* parts, int count);

  /// One operation at a time has the mailbox of a process.
  std::shared_ptr<Mailbox> open_mailbox(int pid);
  void close_mailbox(int pid, const std::shared_ptr<Mailbox>& box);
  /// Ends the waiting of an operation whose process has ended.
  void fail_mailbox(int pid, Error why);

 private:
  Status send_bytes(ControlType type, const Bytes& body);
  Status named(Status sent) const;
  void read_until_lost();
  bool goes_to_mailbox(ControlType type) const;
  void post(ControlMessage message);
  std::shared_ptr<PageSink> sink_of(int pid);
  void end(Error why);

  std::string name_;
  UniqueFd connection_;
  uint32_t address_;
  Listener& listener_;
  std::atomic<bool> alive_{true};
  std::mutex send_mutex_;
  std::mutex boxes_mutex_;
  std::map<int, std::shared_ptr<Mailbox>> boxes_;
};

/// An operation's claim on a mailbox.
class OpenMailbox {
 public:
  OpenMailbox(std::shared_ptr<AwayNode> node, int pid)
      : node_(std::move(node)), pid_(pid), box_(node_->open_mailbox(pid)) {}
  ~OpenMailbox() { node_->close_mailbox(pid_, box_); }
  OpenMailbox(const OpenMailbox&) = delete;
  Mailbox& box() { return *box_; }

 private:
  std::shared_ptr<AwayNode> node_;
  int pid_;
  std::shared_ptr<Mailbox> box_;
};

}  // namespace mosix
