#include "deputy/mailbox.h"

namespace mosix {

void Mailbox::post(ControlMessage message) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return bytes_ < kMailboxBytes || closed_; });
  if (closed_) return;
  bytes_ += message.body.size();
  messages_.push_back(std::move(message));
  changed_.notify_all();
}

Result<ControlMessage> Mailbox::take(int timeout_ms) {
  std::unique_lock lock(mutex_);
  bool told = changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                                [this] { return !messages_.empty() || closed_; });
  if (!told) return fail(ETIMEDOUT, node_ + " does not answer");
  if (messages_.empty()) return fail(*closed_);
  ControlMessage message = std::move(messages_.front());
  messages_.pop_front();
  bytes_ -= message.body.size();
  changed_.notify_all();
  return message;
}

void Mailbox::close(Error why) {
  std::lock_guard lock(mutex_);
  if (!closed_) closed_ = std::move(why);
  changed_.notify_all();
}

void Mailbox::put_pages_into(std::shared_ptr<PageSink> sink) {
  std::lock_guard lock(mutex_);
  sink_ = std::move(sink);
}

std::shared_ptr<PageSink> Mailbox::sink() {
  std::lock_guard lock(mutex_);
  return closed_ ? nullptr : sink_;
}

Status is_message(const ControlMessage& message, ControlType type) {
  auto got = static_cast<ControlType>(message.type);
  if (got == type) return {};
  if (got != ControlType::kFailed && got != ControlType::kRefuse)
    return fail(EPROTO, "the node sent message " + std::to_string(message.type) + " where " +
                            std::to_string(static_cast<int>(type)) + " was due");
  TRY(Refusal refusal, decode_message<Refusal>(message.body));
  // The sentence is complete; the number is for those who ask for it.
  return fail(refusal.code == 0 ? ECANCELED : refusal.code, refusal.reason);
}

Result<ControlMessage> expect_message(Mailbox& box, ControlType type, int timeout_ms) {
  TRY(ControlMessage message, box.take(timeout_ms));
  TRY_VOID(is_message(message, type));
  return message;
}

}  // namespace mosix
