#include "libmosix/common/features.h"

#include <cstdlib>

namespace mosix {

bool feature_enabled(std::string_view name) {
  const char* value = getenv("MOSIX_FEATURES_OFF");
  std::string_view off = value == nullptr ? "" : value;
  if (off == "all") return false;
  while (!off.empty()) {
    size_t comma = off.find(',');
    if (off.substr(0, comma) == name) return false;
    if (comma == std::string_view::npos) break;
    off.remove_prefix(comma + 1);
  }
  return true;
}

}  // namespace mosix
