// mosrun --report: what the program cost, here and away, printed when it has ended.
#pragma once

#include <functional>

namespace mosix {

/// Forks; the child calls `program`, which execs or returns an exit code. Waits, prints the report on
/// standard error, and returns the program's exit status (128+n if signal n ended it, 125 if there is no
/// child).
int run_with_report(const std::function<int()>& program);

}  // namespace mosix
