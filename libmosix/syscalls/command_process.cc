#include "libmosix/syscalls/command_tables.h"
namespace mosix {
std::span<const CommandTable> process_tables() { return {}; }
}  // namespace mosix
