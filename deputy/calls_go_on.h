// Calls of a process that stands still, which go on at home where they were left: home's kernel knows nothing of what is
// done of them already (resumed_call.h), so they get room for a few instructions in the process. After a homecoming, and
// after a move out that was called off in the middle of a transfer. In the thread that traces the process.
#pragma once

#include <sys/user.h>

#include "deputy/batch.h"
#include "deputy/resumed_call.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

struct ProcessRecord;

class CallsGoOn {
 public:
  /// `worker` carries the agent, and may use the slot of `place`. It keeps its registers.
  CallsGoOn(const ProcessRecord& record, const ProcessMemory& memory, Tracee& worker, AgentPlace place)
      : record_(record), memory_(memory), worker_(worker), place_(place) {}

  /// What the thread goes on with.
  Result<user_regs_struct> registers_for(const ThreadState& thread);
  /// What is to be known when it is interrupted in one of those calls.
  CallsSinceHome take_calls() { return std::move(calls_); }

 private:
  bool is_stream(const user_regs_struct& registers) const;
  UniqueFd copy_of_fd(const user_regs_struct& registers) const;
  template <class MakeCall>
  Status go_on(user_regs_struct& registers, const ThreadState& thread, uint64_t done, MakeCall make_call);
  Status go_on_waiting(user_regs_struct& registers, const ThreadState& thread);
  void go_on_sleeping(const user_regs_struct& registers, const ThreadState& thread);
  Status go_on_reading(user_regs_struct& registers, const ThreadState& thread);

  const ProcessRecord& record_;
  const ProcessMemory& memory_;
  Tracee& worker_;
  AgentPlace place_;
  CallsSinceHome calls_;
};

}  // namespace mosix
