// Stands in for mosixd in the tests of mosixlab, which are about the lab and not about what runs in it: opens
// the control socket and mosixd's port, and waits. It logs who and where it is. MOSIX_STANDIN in the
// environment makes it misbehave: "crash" ends it before it is ready, "deaf" makes it ignore SIGTERM.
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "libmosix/common/limits.h"
#include "libmosix/common/net.h"
#include "libmosix/common/paths.h"

int main() {
  std::string mode = getenv("MOSIX_STANDIN") == nullptr ? "" : getenv("MOSIX_STANDIN");
  if (mode == "deaf") signal(SIGTERM, SIG_IGN);
  dprintf(2, "stand-in: pid %d uid %d\n", getpid(), getuid());
  if (mode == "crash") {
    dprintf(2, "stand-in: the sky is falling\n");
    return 3;
  }
  auto port = mosix::listen_tcp("0.0.0.0", mosix::kDefaultPort);
  auto socket = mosix::listen_unix(mosix::control_socket_path(), 0666);
  if (!port || !socket) {
    dprintf(2, "stand-in: %s\n", (port ? socket : port).error().message().c_str());
    return 1;
  }
  for (;;) pause();
}
