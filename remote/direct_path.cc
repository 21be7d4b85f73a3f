#include "remote/direct_path.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "libmosix/syscalls/table.h"

namespace mosix {
namespace {

constexpr size_t kPageBytes = 4096;

/// Made at home with nothing but numbers, and of no concern to the supervisor.
bool may_go_directly(const SyscallRow& row) {
  bool signals = row.number == SYS_kill || row.number == SYS_tkill || row.number == SYS_tgkill;
  if (row.where != Where::kHome || command_argument(row.number) >= 0 || signals) return false;
  return std::all_of(row.args.begin(), row.args.end(), [](const Arg& arg) {
    return arg.kind == ArgKind::kNone || arg.kind == ArgKind::kValue || arg.kind == ArgKind::kHex ||
           arg.kind == ArgKind::kFd || arg.kind == ArgKind::kDirFd || arg.kind == ArgKind::kPid ||
           arg.kind == ArgKind::kSignal;
  });
}

}  // namespace

Result<std::unique_ptr<DirectPath>> DirectPath::create(uint32_t epoch, int channel) {
  UniqueFd memory(memfd_create("direct", MFD_CLOEXEC));
  if (!memory || ftruncate(memory.get(), kDirectAreaBytes) != 0) return fail_errno("memory of a direct path");
  void* page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (page == MAP_FAILED) return fail_errno("memory of a direct path");
  std::unique_ptr<DirectPath> path(new DirectPath(std::move(memory), static_cast<uint8_t*>(page), channel));
  DirectHead& head = *path->head_;
  head.state = kDirectClosed;
  head.channel = static_cast<uint32_t>(channel);
  for (const SyscallRow& row : syscall_table()) {
    auto number = static_cast<size_t>(row.number);
    if (may_go_directly(row) && number < 8 * sizeof head.numbers)
      head.numbers[number / 64] |= 1ull << number % 64;
  }
  auto* frame = reinterpret_cast<FrameHeader*>(path->page_ + kDirectFrame);
  frame->length = sizeof(CallBody);
  frame->type = static_cast<uint16_t>(FrameType::kCall);
  frame->epoch = epoch;
  return path;
}

DirectPath::DirectPath(UniqueFd memory, uint8_t* page, int channel)
    : memory_(std::move(memory)),
      page_(page),
      head_(reinterpret_cast<DirectHead*>(page)),
      channel_(channel) {}

DirectPath::~DirectPath() { munmap(page_, kPageBytes); }

void DirectPath::open(uint32_t signals_acked) {
  head_->signals_acked = signals_acked;
  __atomic_fetch_and(&head_->state, static_cast<uint32_t>(kDirectInCall), __ATOMIC_RELEASE);
}

bool DirectPath::close() {
  uint32_t before = __atomic_fetch_or(&head_->state, kDirectClosed | kDirectWanted, __ATOMIC_ACQ_REL);
  return (before & kDirectInCall) == 0 && !handed_over();
}

bool DirectPath::close_if_idle() {
  uint32_t before = __atomic_fetch_or(&head_->state, kDirectClosed, __ATOMIC_ACQ_REL);
  if ((before & kDirectInCall) == 0 && !handed_over()) return true;
  if ((before & kDirectClosed) == 0)
    __atomic_fetch_and(&head_->state, ~static_cast<uint32_t>(kDirectClosed), __ATOMIC_RELEASE);
  return false;
}

void DirectPath::wait_for_end(int limit_ms) {
  uint32_t state = load_state();
  if ((state & kDirectInCall) == 0) return;
  timespec limit{limit_ms / 1000, limit_ms % 1000 * 1000000};
  syscall(SYS_futex, &head_->state, FUTEX_WAIT, state, &limit, nullptr, 0);
}

DirectPath::HandedOver DirectPath::take_over() {
  HandedOver taken;
  taken.sequence = head_->sequence;
  memcpy(&taken.call, page_ + kDirectFrame + sizeof(FrameHeader), sizeof taken.call);
  size_t received = std::min<size_t>(head_->received, kDirectInboxBytes);
  taken.received.assign(page_ + kDirectInbox, page_ + kDirectInbox + received);
  __atomic_store_n(&head_->handed_over, 0, __ATOMIC_RELEASE);
  return taken;
}

}  // namespace mosix
