// Pages that a reader of a control connection puts where they belong, and what it returns all the same.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/common/page_sink.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <map>
#include <thread>

#include "libmosix/common/limits.h"
#include "libmosix/common/messages.h"
#include "libmosix/common/unique_fd.h"

using namespace mosix;

namespace {

constexpr int kPid = 77;
constexpr uint64_t kPage = 4096;

class MapSink : public PageSink {
 public:
  std::map<uint64_t, uint8_t> first_bytes;  ///< of each page
  uint64_t refused = 0;                     ///< the page that cannot be put

 private:
  Status put(uint64_t address, const uint8_t* data, size_t bytes) override {
    for (size_t at = 0; at < bytes; at += kPage) {
      if (address + at == refused) return fail(EFAULT, "put page");
      first_bytes[address + at] = data[at];
    }
    return {};
  }
};

struct Wire {
  UniqueFd ours, theirs;
  std::shared_ptr<MapSink> sink = std::make_shared<MapSink>();
  Bytes buffer;

  Wire() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    ours.reset(ends[0]), theirs.reset(ends[1]);
  }
  void send(ControlType type, const Bytes& body) {
    REQUIRE(send_control(theirs.get(), static_cast<uint16_t>(type), body));
  }
  void send_pages(int pid, uint64_t address, size_t count) {
    PageRun run{.pid = pid, .address = address, .data = Bytes(count * kPage)};
    for (size_t i = 0; i < count; ++i) run.data[i * kPage] = static_cast<uint8_t>(address / kPage + i);
    send(ControlType::kPages, encode_message(run));
  }
  Result<ControlMessage> receive() {
    return receive_control(
        ours.get(), [this](int pid) { return pid == kPid ? sink : std::shared_ptr<MapSink>(); }, buffer);
  }
};

}  // namespace

TEST_CASE("pages go to their process's sink, whatever their number; the end is returned after them") {
  Wire wire;
  std::thread sender([&] {
    wire.send_pages(kPid, 16 * kPage, 1);
    wire.send_pages(kPid, 100 * kPage, kPageRunBytes / kPage);
    wire.send(ControlType::kImageEnd, encode_message(ProcessRef{.pid = kPid, .epoch = 1}));
  });
  Result<ControlMessage> message = wire.receive();
  sender.join();
  REQUIRE(message);
  CHECK(message->type == static_cast<uint16_t>(ControlType::kImageEnd));
  CHECK(wire.sink->status());
  CHECK(wire.sink->bytes_taken() == kPage + kPageRunBytes);
  REQUIRE(wire.sink->first_bytes.size() == 1 + kPageRunBytes / kPage);
  for (auto [address, byte] : wire.sink->first_bytes) CHECK(byte == static_cast<uint8_t>(address / kPage));
}

TEST_CASE("pages of a process without a sink are returned whole") {
  Wire wire;
  wire.send_pages(kPid + 1, 16 * kPage, 2);
  Result<ControlMessage> message = wire.receive();
  REQUIRE(message);
  Result<PageRun> run = decode_message<PageRun>(message->body);
  REQUIRE(run);
  CHECK(run->pid == kPid + 1);
  CHECK(run->data.size() == 2 * kPage);
  CHECK(run->data[kPage] == 17);
}

TEST_CASE("pages that make no sense are returned for whoever moves the process to refuse") {
  Wire wire;
  SUBCASE("half a page") {
    wire.send(ControlType::kPages, encode_message(PageRun{kPid, 16 * kPage, Bytes(kPage / 2)}));
  }
  SUBCASE("not where a page begins") {
    wire.send(ControlType::kPages, encode_message(PageRun{kPid, 16 * kPage + 8, Bytes(kPage)}));
  }
  SUBCASE("another count than there is") {
    Bytes body = encode_message(PageRun{kPid, 16 * kPage, Bytes(kPage)});
    body[12] = 1;
    wire.send(ControlType::kPages, body);
  }
  SUBCASE("shorter than their own description") { wire.send(ControlType::kPages, Bytes(3)); }
  Result<ControlMessage> message = wire.receive();
  REQUIRE(message);
  CHECK(message->type == static_cast<uint16_t>(ControlType::kPages));
  CHECK(wire.sink->bytes_taken() == 0);
}

TEST_CASE("the first page that cannot be put is what the sink tells of, and the connection goes on") {
  Wire wire;
  wire.sink->refused = 17 * kPage;
  wire.send_pages(kPid, 16 * kPage, 2);
  wire.send_pages(kPid, 32 * kPage, 2);
  wire.send(ControlType::kImageEnd, {});
  REQUIRE(wire.receive());
  Status status = wire.sink->status();
  REQUIRE(!status);
  CHECK(status.error().code == EFAULT);
  CHECK(wire.sink->first_bytes.size() == 1);
}

TEST_CASE("a connection that ends inside of pages is an error, between messages the end") {
  Wire wire;
  SUBCASE("between messages") {
    wire.theirs.reset();
    Result<ControlMessage> message = wire.receive();
    REQUIRE(!message);
    CHECK(message.error().code == EPIPE);
  }
  SUBCASE("inside") {
    Bytes body = encode_message(PageRun{kPid, 16 * kPage, Bytes(2 * kPage)});
    Bytes head = encode_message(ControlHeader{.length = static_cast<uint32_t>(body.size()),
                                              .type = static_cast<uint16_t>(ControlType::kPages)});
    REQUIRE(send(wire.theirs.get(), head.data(), head.size(), 0) == static_cast<ssize_t>(head.size()));
    size_t sent = 0;
    SUBCASE("before their description") { sent = 7; }
    SUBCASE("after it") { sent = 16; }
    SUBCASE("in the middle") { sent = 16 + kPage; }
    if (sent > 0) REQUIRE(send(wire.theirs.get(), body.data(), sent, 0) == static_cast<ssize_t>(sent));
    wire.theirs.reset();
    Result<ControlMessage> message = wire.receive();
    REQUIRE(!message);
    CHECK(message.error().code == EBADMSG);
  }
}
