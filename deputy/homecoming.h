// Away to home: the guest's state comes back into the process that has been standing in for it. Home side,
// one thread for the whole of it.
#pragma once

#include "deputy/held_process.h"
#include "deputy/move_out.h"

namespace mosix {

/// On failure the guest goes on where it was, unless its node is gone (see AwayNode::alive). All members of `group` come,
/// each by a call of its own.
Result<MoveReport> bring_home(ProcessRecord& record, uint32_t epoch, MoveGroup& group);

}  // namespace mosix
