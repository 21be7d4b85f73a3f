// Small things about processes, descriptors and files that every part of the lab needs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix::lab {

/// Runs a program with `input` on its stdin and waits. Not zero: an error that carries its output.
/// ENOENT names the Debian package that has the program.
Status run_program(const std::vector<std::string>& argv, const std::string& input);

/// Closes every descriptor above 2 but those named.
void close_all_except(std::vector<int> kept);
/// Points 0, 1 and 2 at /dev/null.
void detach_stdio();

Status write_file(const std::string& path, const std::string& text, mode_t mode = 0644);
/// Writes to a file that exists already (of /proc, /sys or a cgroup) in one write.
Status write_existing(const std::string& path, const std::string& text);
Result<std::string> read_file(const std::string& path);
/// The last lines of a file, indented, for a message; "" when there is none.
std::string file_tail(const std::string& path, int lines);
/// mkdir -p.
Status make_folders(const std::string& path, mode_t mode = 0755);

Result<UniqueFd> open_pidfd(pid_t pid);
/// True when the process behind a pidfd has ended within the limit.
bool wait_pidfd(int pidfd, int limit_ms);
/// Milliseconds of the monotonic clock.
int64_t now_ms();

/// Drops to an ordinary user for good: no group, no capability. uid 0 changes nothing.
Status drop_to(uid_t uid, gid_t gid);

}  // namespace mosix::lab
