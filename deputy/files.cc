// Files that those that are away have mapped shared and writable: what their nodes ask and tell, and what the kernel here
// says of somebody who opens one (file_bindings.h). Part of Custodian.
#include <sys/signalfd.h>
#include <unistd.h>

#include "deputy/custodian.h"
#include "libmosix/common/log.h"

namespace mosix {

/// The contents are there before the answer.
void Custodian::bind_file(const std::shared_ptr<AwayNode>& node, const FileBind& ask) {
  std::set<int> there, away;
  {
    std::lock_guard lock(mutex_);
    for (auto& [pid, record] : records_) {
      Place place = record->place();
      if (place.node == node) there.insert(pid);
      if (place.node != nullptr) away.insert(pid);
    }
  }
  FileTold told{.question = ask.question};
  auto bind = [&]() -> Status {
    if (there.count(ask.pid) == 0) return fail(EPERM, "a process that is not there");
    TRY(FileBindings::Bound bound, files_.bind(node, ask.pid, ask.number, there, away));
    told.device = bound.key.first;
    told.inode = bound.key.second;
    told.size = bound.size;
    told.binding = bound.number;
    told.descriptors = std::move(bound.descriptors);
    Status sent = files_.send_contents(node, bound.key);
    if (!sent) files_.release(bound.key);
    return sent;
  };
  if (Status bound = bind(); !bound) {
    told.code = bound.error().code == 0 ? EBUSY : bound.error().code;
    told.reason = bound.error().what;
  }
  (void)node->send(ControlType::kFileTold, told);
}

void Custodian::file_written(const std::shared_ptr<AwayNode>& node, const FileWrite& change) {
  if (Status written = files_.write(node, change); !written)
    log_error("a file that was changed on " + node->name() + ": " + written.error().message());
}

void Custodian::file_settled(const std::shared_ptr<AwayNode>& node, const FileSettle& settle) {
  Status settled = files_.settled(node, settle);
  wake();
  if (settle.question == 0) return;
  FileTold told{.question = settle.question};
  if (!settled) {
    told.code = settled.error().code;
    told.reason = settled.error().what;
  }
  (void)node->send(ControlType::kFileTold, told);
}

/// The nodes bring them home, or say that nobody needs them any more; until then whoever opens one waits.
void Custodian::recall_files() {
  signalfd_siginfo signal;
  while (read(lease_signals_.get(), &signal, sizeof signal) > 0) {
  }
  for (const FileBindings::Recall& recall : files_.recalls())
    (void)recall.node->send(ControlType::kFileRecall, FileRef{recall.key.first, recall.key.second});
}

}  // namespace mosix
