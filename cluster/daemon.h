// mosixd as a whole: builds the parts in order, serves until SIGTERM, ends in order. Main thread.
#pragma once

#include <string>

#include "cluster/adopted.h"
#include "cluster/away_side.h"
#include "cluster/context.h"
#include "cluster/control_ops.h"
#include "cluster/control_server.h"
#include "cluster/home_side.h"
#include "cluster/node_server.h"

namespace mosix {

/// After SIGTERM, guests and own processes have this long to go home.
inline constexpr int kEndLimitMs = 10'000;

/// Settings, map, key and own place in the map. Nothing is opened yet; --check-config stops here.
Status load_configuration(Context& context, const std::string& settings_file);

class Daemon {
 public:
  explicit Daemon(Context& context);
  ~Daemon();
  /// Takes run directory, ports and sockets; mosixd.sock appears last.
  Status start();
  /// Serves until told to end. False: something was left behind when the time was up.
  bool serve();

 private:
  Status take_run_dir();
  Status watch_signals();
  void on_signal();
  void reap();
  void reload_map();
  void begin_end();
  void end_if_done();

  Context& context_;
  AwaySide away_;
  HomeSide home_;
  AdoptedTable adopted_;
  ControlOps ops_;
  ControlServer control_;
  NodeServer nodes_;
  UniqueFd lock_, signals_;
  bool guests_gone_ = false, own_home_ = false, in_time_ = true;
};

/// Tells the service manager, where there is one (NOTIFY_SOCKET): "READY=1", "STOPPING=1".
void notify_manager(const std::string& state);

}  // namespace mosix
