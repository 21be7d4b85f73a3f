#include "libmosix/syscalls/command_tables.h"
namespace mosix {
std::span<const CommandTable> sockopt_tables() { return {}; }
}  // namespace mosix
