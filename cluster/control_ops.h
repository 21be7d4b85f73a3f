// What each request on the control socket means: one function for each "op". Reads and answers here; what
// moves something is done by HomeSide. docs: mosixd(8) lists the requests. Loop's thread.
#pragma once

#include "cluster/adopted.h"
#include "cluster/away_side.h"
#include "cluster/control_server.h"
#include "cluster/home_side.h"
#include "cluster/node_poll.h"

namespace mosix {

class ControlOps {
 public:
  ControlOps(Context& context, HomeSide& home, AwaySide& away, AdoptedTable& adopted)
      : context_(context), home_(home), away_(away), adopted_(adopted), poll_(context) {}

  /// Where trace events go; to be set before the first request.
  void stream_to(ControlServer& server) { server_ = &server; }

  void handle(const ControlPeer& peer, const Json& request, Reply reply);
  void client_closed(uint64_t client) {
    home_.traces().unsubscribe(client);
    home_.accounts().close(client);
  }

 private:
  void status(const ControlPeer& peer, const Json& request, Reply reply);
  void nodes(const ControlPeer& peer, const Json& request, Reply reply);
  void run(const ControlPeer& peer, const Json& request, Reply reply);
  void migrate(const ControlPeer& peer, const Json& request, Reply reply);
  void processes(const ControlPeer& peer, const Json& request, Reply reply);
  void where(const ControlPeer& peer, const Json& request, Reply reply);
  void trace(const ControlPeer& peer, const Json& request, Reply reply);
  void account(const ControlPeer& peer, const Json& request, Reply reply);

  Context& context_;
  HomeSide& home_;
  AwaySide& away_;
  AdoptedTable& adopted_;
  NodePoll poll_;
  ControlServer* server_ = nullptr;
};

}  // namespace mosix
