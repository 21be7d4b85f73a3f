// The file that a command name stands for, found as execvp finds it, and what is special about it.
#pragma once

#include <string>

#include "libmosix/common/result.h"

namespace mosix {

/// The path that exec will be given. ENOENT: no such file in PATH; EACCES: there is one that may not be run.
Result<std::string> find_program(const std::string& command);

/// "set-user-id", "set-group-id", "file capabilities" if executing the file changes what the process may do,
/// otherwise empty. Such programs are never traced, and so never leave home.
std::string identity_change(const std::string& path);

}  // namespace mosix
