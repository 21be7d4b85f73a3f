// What a program leaves in its folder: names, kinds, modes and contents, as `mosixlab storm` compares two runs of it.
#pragma once

#include <map>
#include <string>

#include "libmosix/common/result.h"

namespace mosix::lab {

/// A line for each entry, by its path below the folder: kind and mode, then size and SHA-256 of a file's contents, or
/// what a link points to. Times, owners and link counts are left out.
using FolderState = std::map<std::string, std::string>;

Result<FolderState> folder_state(const std::string& folder);

}  // namespace mosix::lab
