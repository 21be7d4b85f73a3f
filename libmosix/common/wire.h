// Bytes of control messages: little-endian integers and counted bytes, written by Encoder, read by
// Decoder. A message is a struct with one `visit` template that names its fields in order; encoding,
// decoding and the fuzzers all come from that one list. Decoding is total: it never trusts a length,
// and a message with bytes missing or left over is an error.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "libmosix/common/result.h"

namespace mosix {

using Bytes = std::vector<uint8_t>;

class Encoder {
 public:
  template <class T>
  requires std::is_integral_v<T> || std::is_enum_v<T>
  void operator()(const T& value) {
    uint64_t wide = static_cast<uint64_t>(value);
    for (size_t i = 0; i < sizeof(T); ++i) out_.push_back(static_cast<uint8_t>(wide >> (8 * i)));
  }
  void operator()(const std::string& text) {
    (*this)(static_cast<uint32_t>(text.size()));
    out_.insert(out_.end(), text.begin(), text.end());
  }
  void operator()(const Bytes& bytes) {
    (*this)(static_cast<uint32_t>(bytes.size()));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  template <class T>
  requires requires(T& t, Encoder& e) { t.visit(e); }
  void operator()(const T& message) { const_cast<T&>(message).visit(*this); }
  template <class T>
  requires(!std::is_same_v<T, uint8_t>) void operator()(const std::vector<T>& items) {
    (*this)(static_cast<uint32_t>(items.size()));
    for (const T& item : items) (*this)(item);
  }
  template <class T, size_t N>
  void operator()(const T (&items)[N]) {
    for (const T& item : items) (*this)(item);
  }

  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
};

class Decoder {
 public:
  Decoder(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  template <class T>
  requires std::is_integral_v<T> || std::is_enum_v<T>
  void operator()(T& value) {
    if (!need(sizeof(T))) return;
    uint64_t wide = 0;
    for (size_t i = 0; i < sizeof(T); ++i) wide |= static_cast<uint64_t>(at_[i]) << (8 * i);
    at_ += sizeof(T);
    value = static_cast<T>(wide);
  }
  void operator()(std::string& text) {
    uint32_t n = 0;
    (*this)(n);
    if (!need(n)) return;
    text.assign(reinterpret_cast<const char*>(at_), n);
    at_ += n;
  }
  void operator()(Bytes& bytes) {
    uint32_t n = 0;
    (*this)(n);
    if (!need(n)) return;
    bytes.assign(at_, at_ + n);
    at_ += n;
  }
  template <class T>
  requires requires(T& t, Decoder& d) { t.visit(d); }
  void operator()(T& message) { message.visit(*this); }
  template <class T>
  requires(!std::is_same_v<T, uint8_t>) void operator()(std::vector<T>& items) {
    uint32_t n = 0;
    (*this)(n);
    // An element takes at least one byte, so a count beyond what is left is a lie; memory is never
    // reserved on the word of the other side.
    if (!need(n)) return;
    items.clear();
    for (uint32_t i = 0; i < n && ok_; ++i) {
      items.emplace_back();
      (*this)(items.back());
    }
  }
  template <class T, size_t N>
  void operator()(T (&items)[N]) {
    for (T& item : items) (*this)(item);
  }

  bool ok() const { return ok_; }
  bool at_end() const { return at_ == end_; }

 private:
  bool need(size_t n) {
    if (!ok_ || static_cast<size_t>(end_ - at_) < n) ok_ = false;
    return ok_;
  }
  const uint8_t* at_;
  const uint8_t* end_;
  bool ok_ = true;
};

template <class M>
Bytes encode_message(const M& message) {
  Encoder encoder;
  encoder(message);
  return encoder.take();
}

template <class M>
Result<M> decode_message(const Bytes& bytes) {
  M message{};
  Decoder decoder(bytes.data(), bytes.size());
  decoder(message);
  if (!decoder.ok() || !decoder.at_end()) return fail(EBADMSG, "message is garbled");
  return message;
}

/// What frames every control message on a stream: body length in bytes, type, and room that encryption
/// will need. 16 bytes, little-endian.
struct ControlHeader {
  uint32_t length = 0;
  uint16_t type = 0;
  uint16_t key_epoch = 0;  ///< 0: in clear
  uint64_t nonce = 0;

  template <class A>
  void visit(A& a) {
    a(length), a(type), a(key_epoch), a(nonce);
  }
};

struct ControlMessage {
  uint16_t type = 0;
  Bytes body;
};

/// Sends one control message, blocking. Callers that share a socket between threads lock around it.
Status send_control(int fd, uint16_t type, const Bytes& body);
/// Receives one, blocking. EPIPE: the peer closed at a message boundary; EBADMSG: garbled or over-long.
Result<ControlMessage> receive_control(int fd);
/// The same in two steps: the header, with the same errors, and the body, of which the caller may have read the
/// first bytes.
Result<ControlHeader> receive_control_header(int fd);
Result<ControlMessage> receive_control_body(int fd, const ControlHeader& header, Bytes first);

}  // namespace mosix
