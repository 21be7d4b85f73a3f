// Settings of mosixd: etc_dir()/mosix.toml, every key with a default, so that an absent file is a valid one.
// Read once at the start, before any thread. An unknown key is an error with its line: a misspelt
// `max_guest` that is silently ignored would be found only when the node is overrun.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "libmosix/common/limits.h"
#include "libmosix/common/result.h"

namespace mosix {

/// Features that [features] may switch off. Custodians and supervisors find the names of those that are off
/// in MOSIX_FEATURES_OFF, separated by commas (libmosix/common/features.h).
inline constexpr std::array<std::string_view, 8> kFeatureNames = {
    "io_uring",    "ring_without_fd", "sync_wake_up", "pagemap_scan",
    "userfaultfd", "time_namespace",  "kernel_tls",   "fast_path",
};

struct Settings {
  std::string file;  ///< where they came from; empty: no file, all defaults
  int node_id = 0;   ///< 0: found by address
  std::string node_name;
  std::string listen = "0.0.0.0";
  int port = kDefaultPort;
  std::string key_file;  ///< default etc_dir()/cluster.key
  std::string map_file;  ///< empty: the usual places
  int max_guests = kDefaultMaxGuests;
  bool allow_root_guests = false;
  std::string guest_user = "nobody";
  bool debug = false;
  std::vector<std::string> features_off;
};

/// Errors begin with "FILE:LINE:".
Result<Settings> parse_settings(std::string_view text, const std::string& file);
/// `file` empty: etc_dir()/mosix.toml, which need not exist.
Result<Settings> load_settings(const std::string& file);
/// Value for MOSIX_FEATURES_OFF: those of the settings and those that `already` names, each once.
std::string features_off_value(const Settings& settings, std::string_view already);

}  // namespace mosix
