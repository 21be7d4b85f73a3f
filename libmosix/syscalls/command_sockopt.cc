// Rows per socket option: getsockopt and setsockopt. Constant data; table.cc looks it up.
//
// Nearly every option is bytes whose length stands beside them, and what is not listed is carried as such
// (rows_sockets.inc). So this list exists for the names and forms that a person wants to read, and for the
// few options whose bytes hold an address or make the kernel keep or map the program's memory.

#include <asm/socket.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/netlink.h>
#include <linux/tcp.h>

#include "libmosix/syscalls/command_tables.h"

// Newer than the oldest header.
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#define SO_PEERPIDFD 77
#endif

namespace mosix {
namespace {

using namespace row_words;

// Levels, as linux/socket.h has them for the kernel alone.
constexpr uint32_t SOL_NETLINK = 270;
constexpr uint32_t SOL_PACKET = 263;
constexpr uint32_t SOL_RDS = 276;
constexpr uint32_t SOL_SCTP = 132;
constexpr uint32_t SOL_XDP = 283;

constexpr Command option(uint32_t level, uint32_t number, std::string_view name) {
  return {.command = number, .name = name, .level = level};
}
#define MOSIX_OPTION(level, name) option(static_cast<uint32_t>(level), static_cast<uint32_t>(name), #name)

struct NamedOption {
  Command command;
  std::string_view decode;  ///< of its value
};

// Options whose value is plain bytes in both directions.
constexpr NamedOption kPlain[] = {
    {MOSIX_OPTION(SOL_SOCKET, SO_DEBUG), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_REUSEADDR), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TYPE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_ERROR), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_DONTROUTE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_BROADCAST), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_SNDBUF), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RCVBUF), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_SNDBUFFORCE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RCVBUFFORCE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_KEEPALIVE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_OOBINLINE), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_NO_CHECK), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PRIORITY), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_LINGER), "linger"},
    {MOSIX_OPTION(SOL_SOCKET, SO_REUSEPORT), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PASSCRED), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PEERCRED), "ucred"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RCVLOWAT), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_SNDLOWAT), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RCVTIMEO_OLD), "timeval"},
    {MOSIX_OPTION(SOL_SOCKET, SO_SNDTIMEO_OLD), "timeval"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RCVTIMEO_NEW), "timeval"},
    {MOSIX_OPTION(SOL_SOCKET, SO_SNDTIMEO_NEW), "timeval"},
    {MOSIX_OPTION(SOL_SOCKET, SO_BINDTODEVICE), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_DETACH_FILTER), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PEERNAME), "sockaddr"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMP_OLD), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMP_NEW), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMPNS_OLD), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMPNS_NEW), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMPING_OLD), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_TIMESTAMPING_NEW), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_ACCEPTCONN), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PEERSEC), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_PASSSEC), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_MARK), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PROTOCOL), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_DOMAIN), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_RXQ_OVFL), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PEEK_OFF), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_LOCK_FILTER), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_BUSY_POLL), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_MAX_PACING_RATE), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_INCOMING_CPU), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_ATTACH_BPF), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_MEMINFO), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_INCOMING_NAPI_ID), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_COOKIE), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_PEERGROUPS), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_TXTIME), ""},
    {MOSIX_OPTION(SOL_SOCKET, SO_BINDTOIFINDEX), "int"},
    {MOSIX_OPTION(SOL_SOCKET, SO_PASSPIDFD), "int"},

    {MOSIX_OPTION(IPPROTO_TCP, TCP_NODELAY), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_MAXSEG), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_CORK), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_KEEPIDLE), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_KEEPINTVL), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_KEEPCNT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_SYNCNT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_LINGER2), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_WINDOW_CLAMP), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_INFO), ""},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_QUICKACK), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_CONGESTION), ""},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_FASTOPEN), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT), "int"},
    {MOSIX_OPTION(IPPROTO_TCP, TCP_ULP), ""},

    {MOSIX_OPTION(IPPROTO_IP, IP_TOS), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_TTL), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_HDRINCL), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_OPTIONS), ""},
    {MOSIX_OPTION(IPPROTO_IP, IP_PKTINFO), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_MTU_DISCOVER), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_RECVERR), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_RECVTTL), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_RECVTOS), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_MTU), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_FREEBIND), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_TRANSPARENT), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), "int"},
    {MOSIX_OPTION(IPPROTO_IP, IP_MULTICAST_IF), ""},
    {MOSIX_OPTION(IPPROTO_IP, IP_MULTICAST_TTL), ""},
    {MOSIX_OPTION(IPPROTO_IP, IP_MULTICAST_LOOP), ""},
    {MOSIX_OPTION(IPPROTO_IP, IP_ADD_MEMBERSHIP), ""},
    {MOSIX_OPTION(IPPROTO_IP, IP_DROP_MEMBERSHIP), ""},

    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_V6ONLY), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_MULTICAST_HOPS), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_MULTICAST_IF), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_MULTICAST_LOOP), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP), ""},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP), ""},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_MTU_DISCOVER), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_MTU), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_RECVERR), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_RECVPKTINFO), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_RECVHOPLIMIT), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_RECVTCLASS), "int"},
    {MOSIX_OPTION(IPPROTO_IPV6, IPV6_TCLASS), "int"},

    {MOSIX_OPTION(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_DROP_MEMBERSHIP), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_PKTINFO), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_BROADCAST_ERROR), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_NO_ENOBUFS), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_CAP_ACK), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_EXT_ACK), "int"},
    {MOSIX_OPTION(SOL_NETLINK, NETLINK_GET_STRICT_CHK), "int"},
};
constexpr size_t kPlainCount = std::size(kPlain);

// ---- the two calls --------------------------------------------------------------------------------------

constexpr Row set_call(Arg optval) {
  return MOSIX_CALL(setsockopt)
      .with(fd(), value("level", "sockopt_level"), value("optname"), optval, value("optlen"));
}
constexpr Row get_call(Arg optval) {
  return MOSIX_CALL(getsockopt)
      .with(fd(), value("level", "sockopt_level"), value("optname"), optval,
            always("optlen", bytes(4), "int"));
}

constexpr CommandRow sets(NamedOption option, uint32_t effects = 0) {
  return command_row(option.command, set_call(in("optval", counted(4), option.decode)).home("0", effects));
}
constexpr CommandRow gets(NamedOption option, uint32_t effects = 0) {
  return command_row(option.command, get_call(out("optval", length_at(4), option.decode)).home("0", effects));
}
constexpr CommandRow set_comes_home(Command option, std::string_view why) {
  return command_row(option, set_call(local("optval")).bring_home(why));
}
constexpr CommandRow get_comes_home(Command option, std::string_view why) {
  const Row call =
      MOSIX_CALL(getsockopt)
          .with(fd(), value("level", "sockopt_level"), value("optname"), local("optval"), local("optlen"));
  return command_row(option, call.bring_home(why));
}

constexpr std::string_view kHoldsAddresses = "the option's bytes hold addresses of the program";
constexpr std::string_view kSharesMemory = "the kernel would share or keep the program's memory";

// iptables, ip6tables, arptables and ebtables, whose numbers overlap: 64 and 65, 96 and 97, 128 to 130.
constexpr CommandRow table_option(uint32_t level, uint32_t number, std::string_view name) {
  return set_comes_home(option(level, number, name), kHoldsAddresses);
}

constexpr CommandRow kSpecialSets[] = {
    // What is copied out of a structure with a pointer in it; the forwarder knows this one.
    command_row(MOSIX_OPTION(SOL_SOCKET, SO_ATTACH_FILTER),
                set_call(in("optval", bytes(16), "sock_fprog")).home("0")),
    command_row(MOSIX_OPTION(SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF),
                set_call(in("optval", bytes(16), "sock_fprog")).home("0")),
    set_comes_home(MOSIX_OPTION(SOL_SOCKET, SO_ZEROCOPY), kSharesMemory),
    set_comes_home(MOSIX_OPTION(SOL_PACKET, PACKET_RX_RING), kSharesMemory),
    set_comes_home(MOSIX_OPTION(SOL_PACKET, PACKET_TX_RING), kSharesMemory),
    set_comes_home(MOSIX_OPTION(SOL_PACKET, PACKET_FANOUT_DATA), kHoldsAddresses),
    set_comes_home(option(SOL_XDP, 2, "XDP_RX_RING"), kSharesMemory),
    set_comes_home(option(SOL_XDP, 3, "XDP_TX_RING"), kSharesMemory),
    set_comes_home(option(SOL_XDP, 4, "XDP_UMEM_REG"), kSharesMemory),
    set_comes_home(option(SOL_RDS, 2, "RDS_GET_MR"), kSharesMemory),
    set_comes_home(option(SOL_RDS, 7, "RDS_GET_MR_FOR_DEST"), kSharesMemory),
    table_option(IPPROTO_IP, 64, "IPT_SO_SET_REPLACE"),
    table_option(IPPROTO_IP, 96, "ARPT_SO_SET_REPLACE"),
    table_option(IPPROTO_IP, 128, "EBT_SO_SET_ENTRIES"),
    table_option(IPPROTO_IP, 129, "EBT_SO_SET_COUNTERS"),
    table_option(IPPROTO_IPV6, 64, "IP6T_SO_SET_REPLACE"),
};

constexpr CommandRow kSpecialGets[] = {
    // Its length counts instructions, not bytes.
    get_comes_home(MOSIX_OPTION(SOL_SOCKET, SO_ATTACH_FILTER), "a filter is measured in instructions"),
    gets({MOSIX_OPTION(SOL_SOCKET, SO_PEERPIDFD), "int"}, kAddsFd),
    gets({MOSIX_OPTION(SOL_SOCKET, SO_ZEROCOPY), "int"}),
    get_comes_home(MOSIX_OPTION(IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE), kSharesMemory),
    get_comes_home(option(IPPROTO_IP, 128, "EBT_SO_GET_INFO"), kHoldsAddresses),
    get_comes_home(option(IPPROTO_IP, 129, "EBT_SO_GET_ENTRIES"), kHoldsAddresses),
    get_comes_home(option(IPPROTO_IP, 130, "EBT_SO_GET_INIT_INFO"), kHoldsAddresses),
    get_comes_home(option(IPPROTO_IP, 131, "EBT_SO_GET_INIT_ENTRIES"), kHoldsAddresses),
    get_comes_home(option(SOL_SCTP, 111, "SCTP_SOCKOPT_CONNECTX3"), kHoldsAddresses),
};

template <size_t N>
struct Written {
  CommandRow rows[N];
};

template <class Make, size_t N>
consteval auto with_plain(Make make, const CommandRow (&special)[N]) {
  Written<kPlainCount + N> written{};
  for (size_t i = 0; i < kPlainCount; ++i) written.rows[i] = make(kPlain[i]);
  for (size_t i = 0; i < N; ++i) written.rows[kPlainCount + i] = special[i];
  return written;
}

constexpr auto kWrittenSets = with_plain([](NamedOption option) { return sets(option); }, kSpecialSets);
constexpr auto kWrittenGets = with_plain([](NamedOption option) { return gets(option); }, kSpecialGets);
constexpr auto kSets = command_rows(kWrittenSets.rows);
constexpr auto kGets = command_rows(kWrittenGets.rows);

constexpr CommandTable kTables[] = {
    {.number = __NR_setsockopt, .command_argument = 2, .level_argument = 1, .rows = kSets},
    {.number = __NR_getsockopt, .command_argument = 2, .level_argument = 1, .rows = kGets},
};

}  // namespace

std::span<const CommandTable> sockopt_tables() { return kTables; }

}  // namespace mosix
