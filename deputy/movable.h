// What keeps a process at home. Each answer is a clear sentence for `mosctl why`; asked before anything of
// the process has been changed. Home side.
#pragma once

#include <string>
#include <vector>

#include "deputy/file_bindings.h"
#include "libmosix/process/maps.h"
#include "libmosix/process/tracee.h"

namespace mosix {

/// "it is traced by strace (process 4711)", where that is not us; empty: nobody has it.
std::string foreign_tracer(int pid);

/// What its files in /proc tell. Empty: nothing is in the way. `held`: it stands still under our own trace.
std::string why_process_stays(int pid, bool held);
/// What only its mappings tell. Those of files may go if `files` can bind them.
std::string why_mappings_stay(const std::vector<MapEntry>& maps, FileBindings& files);
/// What can be told once its threads stand still.
std::string why_threads_stay(const StoppedProcess& process);

}  // namespace mosix
