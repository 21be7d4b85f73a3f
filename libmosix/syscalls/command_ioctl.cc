#include "libmosix/syscalls/command_tables.h"
namespace mosix {
std::span<const CommandTable> ioctl_tables() { return {}; }
}  // namespace mosix
