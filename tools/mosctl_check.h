// `mosctl check`: what this machine lacks, what is lost by it, and the cure.
#pragma once

namespace mosix {

/// Prints the report; 0 if everything essential is there, otherwise 1. With `kernel_only` mosixd, its key and
/// its nodes are left out, for a machine that is yet to be set up.
int check_machine(bool json, bool kernel_only);

}  // namespace mosix
