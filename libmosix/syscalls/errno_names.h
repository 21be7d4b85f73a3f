// Names of errors and signals as the kernel and strace write them, with the restart codes that only a
// tracer or a supervisor ever sees. Pure; used by decoder, tools and log lines.
#pragma once

#include <string>

namespace mosix {

/// "ENOENT"; "ERESTARTSYS" for 512 and its neighbours; "errno 4000" for what has no name.
std::string errno_name(int code);

/// "No such file or directory"; the sentence for the restart codes as well.
std::string errno_text(int code);

/// "SIGINT"; "SIGRT_3" for real-time signals (counted from the kernel's 32); "signal 99" beyond.
std::string signal_name(int number);

}  // namespace mosix
