// Where things lie: run directory, settings, our own helper programs. One place, so that a lab node, an
// installed system and a build folder differ by two environment variables only.
#pragma once

#include <string>

namespace mosix {

/// $MOSIX_RUN_DIR, or /run/mosix for root, or $XDG_RUNTIME_DIR/mosix, or /tmp/mosix-UID.
std::string run_dir();
/// The control socket of mosixd, run_dir()/mosixd.sock.
std::string control_socket_path();
/// $MOSIX_ETC_DIR, or /etc/mosix.
std::string etc_dir();
/// Full path of a program or library of ours ("mosix-custodian", "libmosix.so"): beside the running
/// program, in its libexec folder, or in the build tree named by $MOSIX_LIBEXEC. Empty if nowhere.
std::string find_component(const std::string& name);

}  // namespace mosix
