#include "deputy/move_group.h"

#include "libmosix/common/membership.h"

namespace mosix {
namespace {

uint64_t fresh_number() {
  uint64_t number = 0;
  while (number == 0) fill_random(&number, sizeof number);
  return number;
}

}  // namespace

MoveGroup::MoveGroup(std::set<int> pids, FileBindings& files)
    : pids_(std::move(pids)),
      number_(pids_.size() == 1 ? 0 : fresh_number()),
      files_(files),
      members_(pids_) {}

Status MoveGroup::meet() {
  std::unique_lock lock(mutex_);
  ++arrived_;
  uint64_t round = round_;
  end_round();
  changed_.wait(lock, [&] { return round_ != round || failure_; });
  // What fails once all were here concerns nobody who was: the others have gone on.
  if (round_ != round) return {};
  return fail(*failure_);
}

/// All who are left have arrived. After a failure no round ends any more.
void MoveGroup::end_round() {
  if (failure_ || arrived_ == 0 || arrived_ < members_.size()) return;
  if (!missing_.empty()) {
    failure_ = Error{EAGAIN, "it shares memory with process " + std::to_string(*missing_.begin())};
    return changed_.notify_all();
  }
  arrived_ = 0;
  ++round_;
  changed_.notify_all();
}

void MoveGroup::leave(int pid) {
  std::lock_guard lock(mutex_);
  if (members_.erase(pid) != 0) end_round();
}

void MoveGroup::give_up(int pid, const Error& why) {
  std::lock_guard lock(mutex_);
  if (members_.erase(pid) == 0) return;
  if (!failure_) {
    bool passes = why.code == EAGAIN || why.code == ESRCH || why.code == ECANCELED;
    failure_ = Error{passes ? EAGAIN : why.code,
                     "it shares memory with process " + std::to_string(pid) + ", of which: " + why.what};
  }
  changed_.notify_all();
}

void MoveGroup::note_sharers(const std::vector<int>& pids) {
  std::lock_guard lock(mutex_);
  for (int pid : pids)
    if (pids_.count(pid) == 0) missing_.insert(pid);
}

std::set<int> MoveGroup::missing() const {
  std::lock_guard lock(mutex_);
  return missing_;
}

}  // namespace mosix
