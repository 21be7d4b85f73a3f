// Membership: two nodes prove to each other that they hold the cluster key before either parses anything
// else of the other. Runs in mosixd, custodians and supervisors, on a freshly connected TCP socket.
//
// Fixed-size messages only: greeting (magic, version, 32 random bytes) each way, then an HMAC-SHA256 over
// both greetings and the role, each way. The session secret for channel tokens comes from the same hash.
// In clear for now; TLS 1.3 takes its place on the same connection (DECISIONS: the frames have room).
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "libmosix/common/result.h"

namespace mosix {

using Secret = std::array<uint8_t, 32>;

inline constexpr uint32_t kProtocolVersion = 4;

/// Reads a key file: 64 hexadecimal digits, mode 0600 or stricter. The error says how to make one.
Result<Secret> load_cluster_key(const std::string& path);
/// A new random key, as the text of a key file.
Result<std::string> generate_cluster_key();
/// Random bytes for tokens; never fails after boot.
void fill_random(void* data, size_t bytes);

/// Proves and demands membership on a connected socket; `limit_ms` bounds each wait for the peer.
/// EACCES: the peer has another key. EPROTO: not a mosixd of this version. Returns the session secret.
Result<Secret> prove_as_client(int fd, const Secret& key, int limit_ms);
Result<Secret> prove_as_server(int fd, const Secret& key, int limit_ms);

}  // namespace mosix
