// Inside the agent: what its two halves, channel and deputy loop, need of each other.
#pragma once

#include "libmosix/agent/agent.h"

namespace mosix {

/// Sends a SIGNAL frame for each signal taken and not yet told. Between frames only.
void send_waiting_signals(AgentSlot* slot);

}  // namespace mosix
