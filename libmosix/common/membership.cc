#include "libmosix/common/membership.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libmosix/common/net.h"
#include "libmosix/common/unique_fd.h"

namespace mosix {
namespace {

struct Greeting {
  char magic[8] = {'M', 'O', 'S', 'I', 'X', 'u', 's', 'r'};
  uint32_t version = kProtocolVersion;
  uint32_t features = 0;
  uint8_t nonce[32] = {};
};
static_assert(sizeof(Greeting) == 48);

Secret keyed_hash(const Secret& key, const char* role, const Greeting& client, const Greeting& server) {
  uint8_t text[16 + 2 * sizeof(Greeting)] = {};
  strncpy(reinterpret_cast<char*>(text), role, 15);
  memcpy(text + 16, &client, sizeof client);
  memcpy(text + 16 + sizeof client, &server, sizeof server);
  Secret out{};
  unsigned size = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), text, sizeof text, out.data(), &size);
  return out;
}

Result<Secret> prove(int fd, const Secret& key, int limit_ms, bool client) {
  set_receive_timeout(fd, limit_ms);
  Greeting mine;
  fill_random(mine.nonce, sizeof mine.nonce);
  TRY_VOID(send_fully(fd, &mine, sizeof mine));
  Greeting theirs;
  Status got = receive_exactly(fd, &theirs, sizeof theirs);
  if (!got) return fail(got.error().code == EAGAIN ? ETIMEDOUT : EPROTO, "no greeting from the other node");
  if (memcmp(theirs.magic, mine.magic, sizeof mine.magic) != 0)
    return fail(EPROTO, "the peer is not a mosixd");
  if (theirs.version != kProtocolVersion)
    return fail(EPROTO, "the peer speaks protocol version " + std::to_string(theirs.version) + ", we speak " +
                            std::to_string(kProtocolVersion));
  const Greeting& client_side = client ? mine : theirs;
  const Greeting& server_side = client ? theirs : mine;
  Secret my_proof = keyed_hash(key, client ? "client" : "server", client_side, server_side);
  Secret expected = keyed_hash(key, client ? "server" : "client", client_side, server_side);
  // The client proves first, so that a node never proves anything to a stranger who merely connected.
  Secret proof;
  if (client) TRY_VOID(send_fully(fd, my_proof.data(), my_proof.size()));
  if (!receive_exactly(fd, proof.data(), proof.size()) ||
      CRYPTO_memcmp(proof.data(), expected.data(), proof.size()) != 0)
    return fail(EACCES, "the peer has another cluster key");
  if (!client) TRY_VOID(send_fully(fd, my_proof.data(), my_proof.size()));
  set_receive_timeout(fd, 0);
  return keyed_hash(key, "session", client_side, server_side);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void fill_random(void* data, size_t bytes) {
  size_t got = 0;
  while (got < bytes) {
    ssize_t n = getrandom(static_cast<char*>(data) + got, bytes - got, 0);
    if (n > 0) got += static_cast<size_t>(n);
  }
}

Result<std::string> generate_cluster_key() {
  uint8_t raw[32];
  fill_random(raw, sizeof raw);
  static const char digits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : raw) {
    text.push_back(digits[byte >> 4]);
    text.push_back(digits[byte & 15]);
  }
  return text + "\n";
}

Result<Secret> load_cluster_key(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd)
    return fail_errno("cluster key " + path + " (make one with `mosctl key > " + path + "`, mode 0600)");
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return fail_errno("cluster key " + path);
  if ((info.st_mode & 077) != 0)
    return fail(EACCES, "cluster key " + path + " can be read by others: chmod 600 it");
  char text[80] = {};
  ssize_t n = ::read(fd.get(), text, sizeof text);
  while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' ')) --n;
  if (n != 64) return fail(EINVAL, "cluster key " + path + " is not 64 hexadecimal digits");
  Secret key{};
  for (size_t i = 0; i < key.size(); ++i) {
    int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return fail(EINVAL, "cluster key " + path + " is not 64 hexadecimal digits");
    key[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return key;
}

Result<Secret> prove_as_client(int fd, const Secret& key, int limit_ms) {
  return prove(fd, key, limit_ms, true);
}
Result<Secret> prove_as_server(int fd, const Secret& key, int limit_ms) {
  return prove(fd, key, limit_ms, false);
}

}  // namespace mosix
