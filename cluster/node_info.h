// What a node says about itself: read from /proc each time somebody asks. Any thread.
#pragma once

#include <string>

#include "libmosix/common/messages.h"

namespace mosix {

/// Load, memory, processors, kernel. What cannot be read stays 0 or empty. Memory is what a program could
/// have (MemAvailable).
NodeInfo read_node_info();

}  // namespace mosix
