// Every bound of the project that a peer, a program or a user can run into, with the sum it comes from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mosix {

/// A control message carries at most one page run (kPageRunBytes) plus its description.
inline constexpr size_t kPageRunBytes = 1 << 20;
inline constexpr size_t kMaxControlMessageBytes = kPageRunBytes + (1 << 20);

/// Threads of one process that can be away: one agent slot each.
inline constexpr int kMaxThreads = 1024;

/// The port that mosixd listens on (TCP), beside openMosix's 723, 4660 and 5000-5700.
inline constexpr int kDefaultPort = 7230;

/// How long a node may take to answer a connection or a stage of a move before it counts as gone.
inline constexpr int kConnectTimeoutMs = 5000;
inline constexpr int kStageTimeoutMs = 30000;

/// A node that acknowledges nothing for so long is gone: its guests here end, and so do our processes there. Long
/// enough for a cable that is put into another socket and for a network that finds another way.
inline constexpr int kSilenceMs = 30000;
/// How often a connection on which nothing is sent is tried.
inline constexpr int kProbeEveryS = 5;

/// Guests that a node accepts unless its settings say otherwise.
inline constexpr int kDefaultMaxGuests = 1024;

}  // namespace mosix
