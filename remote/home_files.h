// Questions of the supervisor about descriptors at home, over the channel of the thread whose call is being answered. They are made again
// when they were only interrupted. ERESTART: a signal or a move comes first, and the thread's own call has to be made
// again; other errors are those of exchange().
#pragma once

#include <cstdint>
#include <string>

#include "remote/channel.h"
#include "remote/guest.h"

namespace mosix {

Result<CallReply> ask_home(GuestThread& thread, const CallPlan& plan);
/// How many bytes there were; an errno of home's as an error.
Result<size_t> read_file_at_home(GuestThread& thread, uint64_t fd, uint64_t offset, void* data, size_t bytes);
/// Where /proc/self/fd says that it leads.
Result<std::string> path_at_home(GuestThread& thread, uint64_t fd);

}  // namespace mosix
