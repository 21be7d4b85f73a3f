#include "cluster/peers.h"

#include <fmt/format.h>

#include <chrono>

#include "libmosix/common/net.h"

namespace mosix {
namespace {

/// The whole sentence: what failed, why, and what to do about it.
tl::unexpected<Error> explain(const Target& target, const Error& error) {
  std::string cure;
  if (error.code == ECONNREFUSED) cure = "; is mosixd running there?";
  if (error.code == ETIMEDOUT || error.code == EHOSTUNREACH || error.code == ENETUNREACH ||
      error.code == EAGAIN)
    cure = fmt::format("; is it up, and port {} open in its firewall?", target.port);
  if (error.code == EACCES) cure = "; both nodes need the same key file";
  int code = error.code == EAGAIN ? ETIMEDOUT : error.code == 0 ? EHOSTUNREACH : error.code;
  return fail(code, fmt::format("{} cannot be reached: {}{}", target.name, error.message(), cure));
}

Result<UniqueFd> connect_and_prove(const Target& target, const Secret& key, int limit_ms) {
  Result<UniqueFd> fd = dial_tcp(target.host, target.port, limit_ms);
  if (!fd) return explain(target, fd.error());
  Result<Secret> session = prove_as_client(fd->get(), key, limit_ms);
  if (!session) return explain(target, session.error());
  set_receive_timeout(fd->get(), limit_ms);
  return fd;
}

/// One request and its answer, which must be of type `wanted`; a refusal is an error with the node's reason.
Result<Bytes> ask(int fd, const Target& target, ControlType type, const Bytes& body, ControlType wanted) {
  Status sent = send_control(fd, static_cast<uint16_t>(type), body);
  if (!sent) return explain(target, sent.error());
  Result<ControlMessage> answer = receive_control(fd);
  if (!answer) return explain(target, answer.error());
  if (answer->type == static_cast<uint16_t>(ControlType::kRefuse)) {
    Result<Refusal> refusal = decode_message<Refusal>(answer->body);
    if (!refusal) return explain(target, refusal.error());
    // What the node lacks is no process and no node that is missing here, which these would mean to a tool.
    bool misleading = refusal->code == 0 || refusal->code == ENOENT || refusal->code == ESRCH;
    return fail(misleading ? EBUSY : refusal->code,
                fmt::format("{} refuses: {}", target.name, refusal->reason));
  }
  if (answer->type != static_cast<uint16_t>(wanted))
    return fail(EPROTO, fmt::format("{} answered with message {} instead of {}", target.name, answer->type,
                                    static_cast<int>(wanted)));
  return std::move(answer->body);
}

}  // namespace

Result<PingAnswer> ping_node(const Target& target, const Secret& key, int limit_ms) {
  TRY(UniqueFd fd, connect_and_prove(target, key, limit_ms));
  auto start = std::chrono::steady_clock::now();
  TRY(Bytes body, ask(fd.get(), target, ControlType::kPing, {}, ControlType::kPong));
  auto spent = std::chrono::steady_clock::now() - start;
  Result<NodeInfo> info = decode_message<NodeInfo>(body);
  if (!info) return explain(target, info.error());
  return PingAnswer{*info,
                    static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(spent).count())};
}

Result<OpenedFamily> open_family(const Target& target, const Secret& key, const GuestOpen& request,
                                 int limit_ms) {
  TRY(UniqueFd fd, connect_and_prove(target, key, limit_ms));
  TRY(Bytes body,
      ask(fd.get(), target, ControlType::kGuestOpen, encode_message(request), ControlType::kAccept));
  Result<NodeInfo> info = decode_message<NodeInfo>(body);
  if (!info) return explain(target, info.error());
  set_receive_timeout(fd.get(), 0);
  std::string address = peer_address(fd.get());
  return OpenedFamily{std::move(fd), *info, address};
}

}  // namespace mosix
