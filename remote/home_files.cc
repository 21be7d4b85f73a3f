#include "remote/home_files.h"

#include <limits.h>
#include <sys/syscall.h>

#include <cstring>

namespace mosix {

Result<CallReply> ask_home(GuestThread& thread, const CallPlan& plan) {
  TRY(CallReply reply, exchange(thread, plan));
  if (reply.verdict == Verdict::kRestart) return fail(ERESTART, "home has a signal for the guest");
  return reply;
}

Result<size_t> read_file_at_home(GuestThread& thread, uint64_t fd, uint64_t offset, void* data,
                                 size_t bytes) {
  CallPlan plan = buffer_plan(SYS_pread64, {fd, 0, bytes, offset, 0, 0}, -1, nullptr, 0, 1,
                              static_cast<uint32_t>(bytes), OutRule::kResult, 1);
  TRY(CallReply reply, ask_home(thread, plan));
  if (reply.result < 0) return fail(static_cast<int>(-reply.result), "read of a file at home");
  if (reply.outs.empty() || reply.outs[0].size() > bytes) return fail(EBADMSG, "read of a file at home");
  memcpy(data, reply.outs[0].data(), reply.outs[0].size());
  return reply.outs[0].size();
}

Result<std::string> path_at_home(GuestThread& thread, uint64_t fd) {
  std::string link = "/proc/self/fd/" + std::to_string(fd);
  CallPlan plan = buffer_plan(SYS_readlink, {0, 0, PATH_MAX, 0, 0, 0}, 0, link.c_str(),
                              static_cast<uint32_t>(link.size() + 1), 1, PATH_MAX, OutRule::kResult, 1);
  TRY(CallReply reply, ask_home(thread, plan));
  if (reply.result <= 0 || reply.outs.empty()) return std::string();
  return std::string(reply.outs[0].begin(), reply.outs[0].end());
}

}  // namespace mosix
