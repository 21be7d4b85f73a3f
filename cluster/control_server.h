// The control socket of the tools: run_dir()/mosixd.sock, one JSON object a line each way. Who asks is what
// the kernel says (SO_PEERCRED). A connection has one request at work at a time, in order; a client that
// sends more waits in its own buffer. Over-long lines, and clients that do not read, are bounded and cut off.
// Loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "cluster/context.h"
#include "cluster/families.h"

namespace mosix {

inline constexpr size_t kMaxControlClients = 512;
inline constexpr size_t kMaxRequestBytes = 64 << 10;
/// A stream of trace events that is not read; further events are dropped and counted.
inline constexpr size_t kMaxUnreadBytes = 4 << 20;

struct ControlPeer {
  uint64_t client = 0;  ///< names the connection
  int pid = 0;
  uint32_t uid = 0;
};

class ControlServer {
 public:
  using Handler = std::function<void(const ControlPeer& peer, const Json& request, Reply reply)>;
  using Closed = std::function<void(uint64_t client)>;

  ControlServer(Context& context, Handler handler, Closed closed);
  ~ControlServer();

  /// The socket file appears complete and listening, in one step: its being there says that mosixd is ready.
  Status start(const std::string& path);
  /// Removes the file and takes no further connection; those that are open go on.
  void stop_accepting();
  /// Sends one more line to a client: a trace event. Dropped and counted if the client does not read.
  void stream(uint64_t client, const Json& event);

 private:
  struct Client;
  void accept_some();
  void pause_accepting();
  void handle(uint64_t id, uint32_t events);
  bool read_some(Client& client);
  void serve_next(uint64_t id);
  void answered(uint64_t id, const Json& reply);
  void write(Client& client, const std::string& line);
  void flush(Client& client);
  void watch_for(Client& client);
  void close(uint64_t id);

  Context& context_;
  Handler handler_;
  Closed closed_;
  UniqueFd listener_;
  std::string path_;
  std::map<uint64_t, std::unique_ptr<Client>> clients_;
  uint64_t next_client_ = 1;
};

}  // namespace mosix
