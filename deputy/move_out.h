// Home to away, and away to another away node. Home side, one thread for the whole of it. Whatever fails
// before the guest has made its first call is rolled back; the error names the stage.
#pragma once

#include <time.h>

#include <memory>
#include <string>

#include "deputy/held_process.h"
#include "deputy/move_group.h"

namespace mosix {

struct MoveReport {
  double freeze_ms = 0;
  double total_ms = 0;
  uint64_t bytes = 0;
};

class Stopwatch {
 public:
  Stopwatch() : start_(now()) {}
  double ms() const { return static_cast<double>(now() - start_) / 1e6; }

 private:
  static int64_t now() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
  }
  int64_t start_;
};

/// "send memory: node2 is gone": the stage in front of what went wrong in it.
Status at_stage(const char* stage, Status status);

/// `hands` may hold the process already (after an exec). On failure the process either runs or, if `hands`
/// holds it, stands ready to be let go at home. ENOTRECOVERABLE: it is lost and must be killed. With `group` all of its
/// members move, each by a call of its own.
Result<MoveReport> move_out(ProcessRecord& record, std::shared_ptr<AwayNode> node, uint32_t epoch,
                            HeldProcess& hands, MoveGroup& group);

/// From record.node straight to `node`. On failure it goes on where it was, or is lost as above.
Result<MoveReport> move_on(ProcessRecord& record, std::shared_ptr<AwayNode> node, uint32_t epoch,
                           MoveGroup& group);

/// The node is gone before the guest made a call: back to the state that home's memory still holds.
Status restore_at_home(ProcessRecord& record);

}  // namespace mosix
