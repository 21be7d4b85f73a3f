#include "cluster/map.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>

#include "libmosix/common/paths.h"

namespace mosix {
namespace {

std::vector<std::string> words_of(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string> words;
  std::istringstream in{std::string(line)};
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_host_name(const std::string& text) {
  if (text.empty() || text.size() > 253 || text.front() == '-') return false;
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return isalnum(c) || c == '.' || c == '-' || c == '_'; });
}

int last_byte(const std::string& address) {
  return number(address.substr(address.rfind('.') + 1)).value_or(0);
}

std::string add_to_last_byte(const std::string& address, int more) {
  return address.substr(0, address.rfind('.') + 1) + std::to_string(last_byte(address) + more);
}

std::string_view short_name(std::string_view name) { return name.substr(0, name.find('.')); }

/// One line of the map with where it stands, for errors.
struct Line {
  std::string file;
  size_t at;
  std::vector<std::string> words;
  tl::unexpected<Error> wrong(const std::string& what) const {
    return fail(0, fmt::format("{}:{}: {}", file, at, what));
  }
};

/// Collects nodes line by line; aliases wait until all nodes are known.
class MapReader {
 public:
  explicit MapReader(const ClusterMap::Resolver& resolve) : resolve_(resolve) {}

  Status read(const Line& line) {
    if (++entries_ > kMaxMapLines)
      return line.wrong(fmt::format("more than {} entries; write neighbours as one range", kMaxMapLines));
    if (line.words.size() != 3)
      return line.wrong(
          fmt::format("{} words instead of three; write `number address-or-name count`, as in "
                      "`1 192.168.0.1 8`",
                      line.words.size()));
    std::optional<int> id = number(line.words[0]);
    if (!id || *id < 1 || *id > kMaxNodeId)
      return line.wrong(fmt::format("node number \"{}\" is not 1 to {}; write `number address count`",
                                    line.words[0], kMaxNodeId));
    const std::string& host = line.words[1];
    bool dotted = is_dotted(host);
    if (!dotted && (!is_host_name(host) || host.find_first_not_of("0123456789.") == std::string::npos))
      return line.wrong(fmt::format("\"{}\" is neither an IPv4 address nor a host name", host));
    Result<std::string> address = dotted ? Result<std::string>(host) : resolve_(host);
    if (line.words[2] == "ALIAS") return remember_alias(line, *id, address);
    return add_range(line, *id, dotted, address);
  }

  Status read_aliases() {
    for (const Alias& alias : aliases_) {
      auto node = nodes_.find(alias.id);
      if (node == nodes_.end())
        return alias.line.wrong(fmt::format(
            "ALIAS of node {0}, which is nowhere in the map; add a line `{0} address 1`", alias.id));
      bool known = by_address_.count(alias.address) != 0;
      TRY_VOID(claim_address(alias.line, alias.address, alias.id));
      if (!known) node->second.aliases.push_back(alias.address);
    }
    return {};
  }

  std::vector<MapNode> take_nodes() {
    std::vector<MapNode> nodes;
    for (auto& [id, node] : nodes_) nodes.push_back(std::move(node));
    return nodes;
  }

 private:
  struct Alias {
    Line line;
    int id;
    std::string address;
  };

  Status remember_alias(const Line& line, int id, const Result<std::string>& address) {
    if (!address)
      return line.wrong(
          fmt::format("alias {} has no address ({}); put it into /etc/hosts or write the address",
                      line.words[1], address.error().message()));
    aliases_.push_back({line, id, *address});
    return {};
  }

  Status add_range(const Line& line, int id, bool dotted, const Result<std::string>& first) {
    std::optional<int> count = number(line.words[2]);
    if (!count || *count < 1)
      return line.wrong(fmt::format("count \"{}\" is neither a number from 1 up nor ALIAS", line.words[2]));
    if (*count > kMaxNodeId - id + 1)
      return line.wrong(fmt::format("the range ends beyond node number {}; lower the count", kMaxNodeId));
    if (!first && *count > 1)
      return line.wrong(
          fmt::format("{} has no address to count from ({}); put it into /etc/hosts or write the address",
                      line.words[1], first.error().message()));
    if (first && last_byte(*first) + *count - 1 > 255)
      return line.wrong(
          fmt::format("a range counts the last byte up, and {} plus {} goes beyond 255; write two lines",
                      *first, *count - 1));
    for (int i = 0; i < *count; ++i) {
      MapNode node{.id = id + i};
      node.name_is_written = !dotted && *count == 1;
      node.name = node.name_is_written ? line.words[1] : fmt::format("node{}", node.id);
      if (first) node.address = add_to_last_byte(*first, i);
      TRY_VOID(add_node(line, std::move(node)));
    }
    return {};
  }

  Status add_node(const Line& line, MapNode node) {
    if (nodes_.count(node.id) != 0)
      return line.wrong(
          fmt::format("node {} is there twice; give it another number, or write ALIAS as count for a "
                      "second address",
                      node.id));
    if (!node.address.empty()) TRY_VOID(claim_address(line, node.address, node.id));
    if (node.name_is_written)
      if (auto [at, fresh] = by_name_.emplace(node.name, node.id); !fresh)
        return line.wrong(fmt::format("{} is already the name of node {}", node.name, at->second));
    nodes_.emplace(node.id, std::move(node));
    return {};
  }

  Status claim_address(const Line& line, const std::string& address, int id) {
    auto [at, fresh] = by_address_.emplace(address, id);
    if (!fresh && at->second != id)
      return line.wrong(fmt::format("{} is already the address of node {}; an address belongs to one node",
                                    address, at->second));
    return {};
  }

  const ClusterMap::Resolver& resolve_;
  size_t entries_ = 0;
  std::map<int, MapNode> nodes_;
  std::map<std::string, int> by_address_, by_name_;
  std::vector<Alias> aliases_;
};

}  // namespace

bool is_dotted(const std::string& text) {
  in_addr ignored;
  return inet_pton(AF_INET, text.c_str(), &ignored) == 1;
}

MapNode* ClusterMap::entry(int id) {
  auto at = std::lower_bound(nodes_.begin(), nodes_.end(), id,
                             [](const MapNode& node, int wanted) { return node.id < wanted; });
  return at != nodes_.end() && at->id == id ? &*at : nullptr;
}

Result<ClusterMap> ClusterMap::parse(std::string_view text, const std::string& file,
                                     const Resolver& resolve) {
  MapReader reader(resolve);
  std::istringstream in{std::string(text)};
  size_t line_number = 0;
  for (std::string raw; std::getline(in, raw);) {
    Line line{file, ++line_number, words_of(raw)};
    if (!line.words.empty()) TRY_VOID(reader.read(line));
  }
  TRY_VOID(reader.read_aliases());
  ClusterMap map;
  map.file_ = file;
  map.nodes_ = reader.take_nodes();
  if (map.nodes_.empty())
    return fail(0, fmt::format("{}: no node in it; write one line for each, `number address count`, as in "
                               "`1 192.168.0.1 8`",
                               file));
  return map;
}

Result<ClusterMap> ClusterMap::load(const std::string& file, const Resolver& resolve) {
  std::ifstream in(file);
  if (!in) return fail_errno("map " + file);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (in.bad()) return fail(EIO, "map " + file);
  return parse(text, file, resolve);
}

const MapNode* ClusterMap::by_id(int id) const { return const_cast<ClusterMap*>(this)->entry(id); }

const MapNode* ClusterMap::by_address(std::string_view address) const {
  for (const MapNode& node : nodes_)
    if (node.address == address ||
        std::find(node.aliases.begin(), node.aliases.end(), address) != node.aliases.end())
      return &node;
  return nullptr;
}

const MapNode* ClusterMap::find(std::string_view text) const {
  if (text.empty()) return nullptr;
  for (const MapNode& node : nodes_)
    if (node.name == text) return &node;
  if (std::optional<int> id = number(text)) return by_id(*id);
  if (const MapNode* node = by_address(text)) return node;
  const MapNode* found = nullptr;
  for (const MapNode& node : nodes_) {
    if (short_name(node.name) != text) continue;
    if (found != nullptr) return nullptr;
    found = &node;
  }
  return found;
}

void ClusterMap::learn_name(int id, const std::string& name) {
  MapNode* node = entry(id);
  if (node == nullptr || node->name_is_written || !is_host_name(name)) return;
  const MapNode* holder = find(name);
  if (holder == nullptr) node->name = name;
}

std::string ClusterMap::names() const {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < nodes_.size() && i < kShown; ++i) text += (i == 0 ? "" : ", ") + nodes_[i].name;
  if (nodes_.size() > kShown) text += fmt::format(" and {} more", nodes_.size() - kShown);
  return text;
}

Result<std::string> find_map_file(const std::string& configured) {
  std::vector<std::string> candidates{configured};
  if (configured.empty())
    candidates = {etc_dir() + "/mosix.map", "/etc/openmosix.map", "/etc/mosix.map", "/etc/hpc.map"};
  for (const std::string& file : candidates) {
    struct stat info {};
    if (::stat(file.c_str(), &info) == 0) return file;
  }
  std::string tried;
  for (const std::string& file : candidates) tried += (tried.empty() ? "" : ", ") + file;
  return fail(ENOENT,
              fmt::format("no map of the cluster ({}); write one with a line `number address count` for "
                          "its nodes, as in `1 192.168.0.1 8`",
                          tried));
}

Result<std::string> resolve_host(const std::string& name) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  int rc = getaddrinfo(name.c_str(), nullptr, &hints, &found);
  if (rc != 0) return fail(0, "resolve " + name + ": " + gai_strerror(rc));
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(found->ai_addr)->sin_addr, text, sizeof text);
  freeaddrinfo(found);
  return std::string(text);
}

std::vector<std::string> own_addresses() {
  std::vector<std::string> ordinary, loopback;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return {};
  for (ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(at->ifa_addr)->sin_addr, text, sizeof text);
    ((at->ifa_flags & IFF_LOOPBACK) != 0 ? loopback : ordinary).push_back(text);
  }
  freeifaddrs(list);
  ordinary.insert(ordinary.end(), loopback.begin(), loopback.end());
  return ordinary;
}

Result<MapNode> own_node(const ClusterMap& map, int node_id, const std::string& listen,
                         const std::vector<std::string>& addresses, const std::string& host_name) {
  if (node_id != 0) {
    if (const MapNode* node = map.by_id(node_id)) return *node;
    return fail(
        0, fmt::format("node_id = {} in the settings, but {} has no node {}; add it there or change node_id",
                       node_id, map.file(), node_id));
  }
  std::vector<std::string> tried = addresses;
  if (!listen.empty() && listen != "0.0.0.0") tried = {listen};
  const MapNode* found = nullptr;
  for (const std::string& address : tried) {
    const MapNode* node = map.by_address(address);
    if (node == nullptr || node == found) continue;
    if (found != nullptr)
      return fail(
          0, fmt::format("this machine has addresses of node {} and of node {} in {}; write node_id into "
                         "mosix.toml",
                         found->id, node->id, map.file()));
    found = node;
  }
  if (found == nullptr && tried == addresses)
    for (const MapNode& node : map.nodes())
      if (node.name_is_written && (node.name == host_name || short_name(node.name) == host_name))
        found = &node;
  if (found != nullptr) return *found;
  std::string text;
  for (const std::string& address : tried) text += (text.empty() ? "" : ", ") + address;
  return fail(
      0, fmt::format("none of this machine's addresses ({}) is in {}; add a line `number address 1` there, "
                     "or write node_id into mosix.toml",
                     text, map.file()));
}

}  // namespace mosix
