#include "libmosix/common/wire.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include "libmosix/common/limits.h"
#include "libmosix/common/net.h"

namespace mosix {

Status send_control(int fd, uint16_t type, const Bytes& body) {
  if (body.size() > kMaxControlMessageBytes) return fail(EMSGSIZE, "control message");
  ControlHeader header{.length = static_cast<uint32_t>(body.size()), .type = type};
  Bytes head = encode_message(header);
  iovec parts[2] = {{head.data(), head.size()}, {const_cast<uint8_t*>(body.data()), body.size()}};
  return send_fully(fd, parts, 2);
}

Result<ControlHeader> receive_control_header(int fd) {
  Bytes head(16);
  TRY_VOID(receive_exactly(fd, head.data(), head.size()));
  TRY(ControlHeader header, decode_message<ControlHeader>(head));
  if (header.length > kMaxControlMessageBytes || header.key_epoch != 0)
    return fail(EBADMSG, "control message header");
  return header;
}

Result<ControlMessage> receive_control_body(int fd, const ControlHeader& header, Bytes first) {
  ControlMessage message{.type = header.type, .body = std::move(first)};
  size_t have = message.body.size();
  message.body.resize(header.length);
  Status body = receive_exactly(fd, message.body.data() + have, header.length - have);
  if (!body) return fail(body.error().code == EPIPE ? EBADMSG : body.error().code, "control message cut off");
  return message;
}

Result<ControlMessage> receive_control(int fd) {
  TRY(ControlHeader header, receive_control_header(fd));
  return receive_control_body(fd, header, {});
}

}  // namespace mosix
