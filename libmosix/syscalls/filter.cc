// The guest's seccomp filter, made from the table. Runs in the supervisor while it prepares a remote.
//
// Shape: the default is USER_NOTIF, and every rule is an ALLOW, so what is missing here is noticed and not
// let through. Memory calls, which pass by their arguments, are judged first (filter_memory.cc); the rest is
// libseccomp's.
//
// The kernel (5.11 and newer) keeps a bitmap of calls that a filter always allows and does not run the filter
// for them at all. What is left to run it are memory calls and calls that are notified anyway, for which
// libseccomp's binary tree has the shorter path (22 instructions in the mean, 38 without).
#include "libmosix/syscalls/filter.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <optional>

#include "libmosix/common/unique_fd.h"
#include "libmosix/syscalls/filter_memory.h"
#include "libmosix/syscalls/table.h"

namespace mosix {
namespace {

constexpr uint64_t k4GiB = uint64_t{1} << 32;
constexpr uint32_t kBinaryTree = 2;  ///< for SCMP_FLTATR_CTL_OPTIMIZE

class FilterBuilder {
 public:
  Result<std::vector<sock_filter>> build() {
    context_.reset(seccomp_init(SCMP_ACT_NOTIFY));
    if (!context_) return fail(ENOMEM, "seccomp_init");
    TRY_VOID(attribute(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_NOTIFY));
    TRY_VOID(attribute(SCMP_FLTATR_CTL_OPTIMIZE, kBinaryTree));
    for (const SyscallRow& row : syscall_table()) TRY_VOID(add_row(row));
    return exported();
  }

 private:
  struct Release {
    void operator()(void* context) const { seccomp_release(context); }
  };

  Status attribute(scmp_filter_attr name, uint32_t value) {
    const int result = seccomp_attr_set(context_.get(), name, value);
    if (result < 0) return fail(-result, "seccomp_attr_set");
    return {};
  }

  Status allow(int number) {
    return added(number, seccomp_rule_add_exact(context_.get(), SCMP_ACT_ALLOW, number, 0));
  }
  /// Commands are ints: the kernel ignores what is above their 32 bits.
  Status allow_command(int number, unsigned arg, uint32_t command) {
    const scmp_arg_cmp comparison{arg, SCMP_CMP_MASKED_EQ, UINT32_MAX, command};
    return added(number,
                 seccomp_rule_add_exact_array(context_.get(), SCMP_ACT_ALLOW, number, 1, &comparison));
  }
  static Status added(int number, int result) {
    if (result < 0) return fail(-result, "seccomp rule for call " + std::to_string(number));
    return {};
  }

  Status add_row(const SyscallRow& row) {
    if (is_memory_call(row.number)) return {};
    if (row.where == Where::kHere) return allow(row.number);
    const std::span<const CommandRow> commands = command_table(row.number);
    for (const CommandRow& command : commands) {
      if (command.row.where != Where::kHere) continue;
      const std::optional<unsigned> arg = command_argument(command);
      if (arg) TRY_VOID(allow_command(row.number, *arg, command.command));
    }
    return {};
  }

  /// Which argument alone makes the table choose this row; none if it takes more than one.
  static std::optional<unsigned> command_argument(const CommandRow& command) {
    const auto number = static_cast<uint64_t>(command.row.number);
    for (unsigned i = 0; i < 6; ++i) {
      // All other arguments are something that is no command.
      std::array<uint64_t, 6> args;
      args.fill(0x7fff'fff1);
      args[i] = command.command;
      if (&syscall_row(number, args) == &command.row) return i;
    }
    return std::nullopt;
  }

  Result<std::vector<sock_filter>> exported() {
    const UniqueFd file(memfd_create("guest-filter", MFD_CLOEXEC));
    if (!file) return fail_errno("memfd_create");
    if (const int result = seccomp_export_bpf(context_.get(), file.get()); result < 0)
      return fail(-result, "seccomp_export_bpf");
    const off_t bytes = lseek(file.get(), 0, SEEK_END);
    if (bytes <= 0 || bytes % sizeof(sock_filter) != 0) return fail(EBADMSG, "exported seccomp filter");
    std::vector<sock_filter> program(static_cast<size_t>(bytes) / sizeof(sock_filter));
    if (pread(file.get(), program.data(), static_cast<size_t>(bytes), 0) != bytes)
      return fail_errno("read exported seccomp filter");
    return program;
  }

  std::unique_ptr<void, Release> context_;
};

}  // namespace

Result<std::vector<sock_filter>> build_guest_filter(uint64_t window_base, uint64_t window_bytes,
                                                    bool judge_low_addresses) {
  const bool is_crooked = window_base % k4GiB != 0 || window_bytes % k4GiB != 0;
  if (is_crooked || window_base < k4GiB || window_bytes == 0 || window_base + window_bytes <= window_base)
    return fail(EINVAL, "window of the agent");
  std::vector<sock_filter> program =
      memory_rules(window_base, window_base + window_bytes, judge_low_addresses);
  TRY(const std::vector<sock_filter> others, FilterBuilder().build());
  program.insert(program.end(), others.begin(), others.end());
  return program;
}

}  // namespace mosix
