// Newer kernel features that we use but do not need. Each has a name, and the environment variable
// MOSIX_FEATURES_OFF ("pagemap_scan,sync_wake_up" or "all") switches it off, so that the paths for older
// kernels can be tested on newer ones. Names: pagemap_scan, sync_wake_up, userfaultfd, io_uring, kernel_tls.
#pragma once

#include <string_view>

namespace mosix {

/// False if MOSIX_FEATURES_OFF names the feature or is "all". Does not ask the kernel: the caller tries and
/// falls back. Reads the environment each time (tests change it); may be called from any thread that does not
/// race setenv.
bool feature_enabled(std::string_view name);

}  // namespace mosix
