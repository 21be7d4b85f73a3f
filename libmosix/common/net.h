// Blocking TCP and unix sockets as values, for daemons and tools. The agent has raw ring code of its own.
#pragma once

#include <netinet/in.h>
#include <sys/uio.h>

#include <cstdint>
#include <string>

#include "libmosix/common/result.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {

/// Connects to an IPv4 address or name, with a limit; TCP_NODELAY is set, and end_when_silent. Errors name address and
/// port.
Result<UniqueFd> dial_tcp(const std::string& host, int port, int timeout_ms);
/// The connection ends with ETIMEDOUT when the peer's machine has acknowledged nothing for kSilenceMs: a cable that is
/// cut, a machine without power, which otherwise nobody would hear of.
void end_when_silent(int fd);
/// Listens on `address` ("0.0.0.0" for all); port 0 lets the kernel choose.
Result<UniqueFd> listen_tcp(const std::string& address, int port);
/// The port a listening or connected socket is bound to, and the peer's address.
int local_port(int fd);
std::string peer_address(int fd);
/// Dotted form of the own address of a connected socket.
std::string local_address(int fd);

Result<UniqueFd> dial_unix(const std::string& path);
/// Replaces a stale socket file. `mode` is the file's permission bits.
Result<UniqueFd> listen_unix(const std::string& path, unsigned mode);

/// Sends all bytes or fails; never raises SIGPIPE. The iovec array is used up.
Status send_fully(int fd, iovec* parts, int count);
Status send_fully(int fd, const void* data, size_t bytes);
/// EPIPE if the peer closed before the first byte, EBADMSG if in the middle.
Status receive_exactly(int fd, void* data, size_t bytes);
/// Receive limit for the next reads of this socket; 0 waits for ever. After it: EAGAIN.
void set_receive_timeout(int fd, int timeout_ms);

/// The link between mosixd and the custodians and supervisors that it started: a SOCK_SEQPACKET pair, one
/// JSON object a message (at most kMaxLinkBytes), with at most one descriptor attached (fd < 0: none).
inline constexpr size_t kMaxLinkBytes = 64 << 10;
Status send_link(int socket, const std::string& text, int fd = -1);
struct LinkMessage {
  std::string text;
  UniqueFd fd;
};
/// EPIPE when the other end is gone.
Result<LinkMessage> receive_link(int socket);

}  // namespace mosix
