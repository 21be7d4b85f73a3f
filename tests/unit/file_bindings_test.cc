// Files that are bound to a node: who may have them, who is heard to open them, what is written to them.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "deputy/file_bindings.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "libmosix/common/net.h"
#include "remote/bound_files.h"

using namespace mosix;

namespace {

class Deaf : public AwayNode::Listener {
 public:
  void heard(const std::shared_ptr<AwayNode>&, ControlMessage) override {}
  void lost(const std::shared_ptr<AwayNode>&) override {}
};

Deaf& listener = *new Deaf;  // threads that have not heard of their connection's end outlive main()

/// A node, and what is sent to it.
struct Node {
  Node() {
    UniqueFd listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE_EQ(bind(listening.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    REQUIRE_EQ(listen(listening.get(), 1), 0);
    REQUIRE_EQ(getsockname(listening.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    UniqueFd home(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE_EQ(connect(home.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    far.reset(accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
    Result<std::shared_ptr<AwayNode>> started = AwayNode::start("node2", std::move(home), listener);
    REQUIRE(started);
    node = *started;
  }
  UniqueFd far;
  std::shared_ptr<AwayNode> node;
};

/// A file in shared memory that a child of ours has open; the child does what it is told by a letter.
class Holder {
 public:
  explicit Holder(size_t bytes) {
    path = "/dev/shm/mosix-bindings-" + std::to_string(getpid());
    UniqueFd made(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    REQUIRE_EQ(ftruncate(made.get(), static_cast<off_t>(bytes)), 0);
    made.reset();
    int ends[2];
    REQUIRE_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
      signal(SIGIO, SIG_DFL);
      close(ends[0]);
      number = open(path.c_str(), O_RDWR);
      (void)!write(ends[1], &number, sizeof number);
      for (;;) pause();
    }
    close(ends[1]);
    REQUIRE_EQ(read(ends[0], &number, sizeof number), static_cast<ssize_t>(sizeof number));
    close(ends[0]);
  }
  ~Holder() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    unlink(path.c_str());
  }
  std::string contents() const {
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd) return "(has to be waited for)";
    std::string text(16, '\0');
    text.resize(static_cast<size_t>(read(fd.get(), text.data(), text.size())));
    return text.c_str();
  }
  std::string path;
  int pid = -1, number = -1;
};

FileSettle settle(const FileBindings::Bound& bound, FileSettle::Then then) {
  return {.question = 0,
          .device = bound.key.first,
          .inode = bound.key.second,
          .binding = bound.number,
          .then = then,
          .pid = 77};
}

FileWrite page(const FileBindings::Bound& bound, uint64_t offset, const std::string& text) {
  FileWrite change{.device = bound.key.first,
                   .inode = bound.key.second,
                   .size = bound.size,
                   .binding = bound.number,
                   .offset = offset,
                   .data = Bytes(4096, 0)};
  memcpy(change.data.data(), text.data(), text.size());
  return change;
}

}  // namespace

TEST_CASE("a bound file is waited for, and recalled, until it is released") {
  signal(SIGIO, SIG_IGN);
  Node away;
  Holder holder(10000);
  FileBindings files;
  Result<FileBindings::Bound> bound =
      files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid});
  REQUIRE(bound);
  CHECK_EQ(bound->size, 10000);
  REQUIRE_EQ(bound->descriptors.size(), 1);
  CHECK_EQ(bound->descriptors[0].number, holder.number);
  CHECK(files.any_away());
  CHECK(files.recalls().empty());
  CHECK_EQ(holder.contents(), "(has to be waited for)");
  REQUIRE_EQ(files.recalls().size(), 1);
  CHECK_EQ(files.recalls()[0].node, away.node);

  CHECK(files.write(away.node, page(*bound, 0, "changed")));
  CHECK(files.settled(away.node, settle(*bound, FileSettle::Then::kLeave)));
  CHECK(files.leaving(away.node, {76}).empty());
  CHECK_EQ(files.leaving(away.node, {76, 77}).size(), 1);
  files.stay(away.node, {77});
  CHECK(files.leaving(away.node, {76, 77}).empty());
  CHECK_EQ(holder.contents(), "(has to be waited for)");
  CHECK(files.settled(away.node, settle(*bound, FileSettle::Then::kRelease)));
  CHECK_EQ(holder.contents(), "changed");
  CHECK_FALSE(files.any_away());
}

TEST_CASE("a file that others have is not bound") {
  Node away;
  Holder holder(4096);
  FileBindings files;
  SUBCASE("opened a second time") {
    UniqueFd second(open(holder.path.c_str(), O_RDONLY | O_CLOEXEC));
    CHECK_FALSE(files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid}));
  }
  SUBCASE("mapped by one who has closed it") {
    UniqueFd second(open(holder.path.c_str(), O_RDWR | O_CLOEXEC));
    void* at = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, second.get(), 0);
    second.reset();
    CHECK_FALSE(files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid}));
    munmap(at, 4096);
  }
  SUBCASE("the descriptor of a process that is elsewhere") {
    CHECK_FALSE(files.bind(away.node, holder.pid, holder.number, {}, {}));
  }
  CHECK_EQ(holder.contents(), "");
  CHECK(files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid}));
  CHECK_FALSE(files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid}));  // it is already
  files.lost(away.node);
  CHECK_EQ(holder.contents(), "");
}

/// A child of ours that has got something ready, and ends with this.
class Child {
 public:
  template <class Work>
  explicit Child(Work work) {
    int ends[2];
    REQUIRE_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
      work();
      (void)!write(ends[1], "", 1);
      for (;;) pause();
    }
    close(ends[1]);
    char ready;
    REQUIRE_EQ(read(ends[0], &ready, 1), 1);
    close(ends[0]);
  }
  ~Child() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  Child(const Child&) = delete;
  int pid = -1;
};

TEST_CASE("a file is not bound that somebody at home has mapped by the same open") {
  Node away;
  std::string path = "/dev/shm/mosix-bindings-" + std::to_string(getpid());
  int number = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE_EQ(ftruncate(number, 4096), 0);
  unlink(path.c_str());
  Child holder([] {});
  FileBindings files;
  {
    Child mapper([&] {
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, number, 0);
      close(number);
    });
    close(number);
    std::set<int> there{holder.pid};
    Result<FileBindings::Bound> bound = files.bind(away.node, holder.pid, number, there, there);
    REQUIRE_FALSE(bound);
    CHECK_EQ(bound.error().what, "a file that process " + std::to_string(mapper.pid) + " has mapped");
    CHECK_FALSE(files.any_away());
    // The mapping of one that is away is of before it moved.
    CHECK(files.bind(away.node, holder.pid, number, there, {holder.pid, mapper.pid}));
    files.lost(away.node);
  }
  CHECK(files.bind(away.node, holder.pid, number, {holder.pid}, {holder.pid}));
}

TEST_CASE("a node changes what is bound to it, and by its last binding") {
  Node away, other;
  Holder holder(5000);
  FileBindings files;
  Result<FileBindings::Bound> first =
      files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid});
  REQUIRE(first);
  CHECK_FALSE(files.write(other.node, page(*first, 0, "foreign")));
  CHECK_FALSE(files.descriptor(other.node, first->key));
  CHECK_FALSE(files.settled(other.node, settle(*first, FileSettle::Then::kRelease)));
  CHECK_FALSE(files.write(away.node, page(*first, 100, "between pages")));
  files.release(first->key);
  Result<FileBindings::Bound> second =
      files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid});
  REQUIRE(second);
  CHECK_FALSE(files.write(away.node, page(*first, 0, "late")));
  CHECK_FALSE(files.settled(away.node, settle(*first, FileSettle::Then::kRelease)));
  CHECK_EQ(holder.contents(), "(has to be waited for)");
  CHECK(files.write(away.node, page(*second, 0, "right")));
  CHECK(files.write(away.node, page(*second, 1 << 20, "behind its end")));
  files.release(second->key);
  CHECK_EQ(holder.contents(), "right");
}

TEST_CASE("what is as it was is not written") {
  Node away;
  Holder holder(8192);
  FileBindings files;
  Result<FileBindings::Bound> bound =
      files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid});
  REQUIRE(bound);
  struct stat before {
  }, after{};
  REQUIRE_EQ(stat(holder.path.c_str(), &before), 0);
  CHECK(files.write(away.node, page(*bound, 4096, "")));
  REQUIRE_EQ(stat(holder.path.c_str(), &after), 0);
  CHECK_EQ(after.st_blocks, before.st_blocks);
  CHECK_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
  CHECK(files.write(away.node, page(*bound, 4096, "x")));
  REQUIRE_EQ(stat(holder.path.c_str(), &after), 0);
  CHECK_GT(after.st_blocks, before.st_blocks);
}

TEST_CASE("what is kept for those at home is closed when nobody maps it") {
  Node away;
  Holder holder(4096);
  FileBindings files;
  Result<FileBindings::Bound> bound =
      files.bind(away.node, holder.pid, holder.number, {holder.pid}, {holder.pid});
  REQUIRE(bound);
  files.release(bound->key);
  MapEntry mapping;
  mapping.shared = true;
  mapping.protection = PROT_READ | PROT_WRITE;
  mapping.device = bound->key.first;
  mapping.inode = bound->key.second;
  mapping.path = holder.path;
  kill(holder.pid, SIGKILL);
  waitpid(holder.pid, nullptr, 0);
  CHECK(files.may_be_bound(mapping));
  files.close_unmapped();
  CHECK_FALSE(files.may_be_bound(mapping));
}

TEST_CASE("contents here: what has been stored is told, also behind the end") {
  Result<std::shared_ptr<BoundFile>> file = BoundFile::create({1, 2}, 3 * 4096 + 10, 7);
  REQUIRE(file);
  void* at = mmap(nullptr, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, (*file)->fd(), 0);
  REQUIRE_NE(at, MAP_FAILED);
  auto* bytes = static_cast<uint8_t*>(at);
  bytes[2 * 4096] = 'a';
  bytes[3 * 4096 + 20] = 'b';
  std::map<uint64_t, Bytes> parts;
  CHECK((*file)->each_part([&](const FileWrite& part) {
    CHECK_EQ(part.binding, 7);
    parts[part.offset] = part.data;
    return Status();
  }));
  REQUIRE_EQ(parts.size(), 1);
  const Bytes& told = parts.at(2 * 4096);
  REQUIRE_EQ(told.size(), 2 * 4096);
  CHECK_EQ(told[0], 'a');
  CHECK_EQ(told[4096 + 20], 'b');
  Bytes whole(4096, 'c');
  CHECK((*file)->put(4096, whole));
  CHECK_EQ(bytes[4096 + 5], 'c');
  CHECK_FALSE((*file)->put(4 * 4096, whole));
  munmap(at, 4 * 4096);
}

TEST_CASE("descriptors: closed, inherited, gone with their process or their file") {
  BoundFiles files;
  CHECK(files.empty());
  {
    Result<BoundPin> file = files.open({1, 2}, 4096, 1);
    REQUIRE(file);
    CHECK_EQ((*file)->pins, 1);
  }
  CHECK_EQ(files.find({1, 2})->pins, 1);  // the one that looks
  for (int number : {3, 4, 9}) files.add_descriptor({100, number, 1, 2});
  files.inherit(100, 101);
  files.closed(100, 4, 8);
  CHECK_FALSE(files.file_of(100, 4));
  CHECK(files.file_of(100, 9));
  CHECK(files.file_of(101, 4));
  CHECK_EQ(files.users_of({1, 2}), std::set<int>{100, 101});
  files.forget_process(101);
  CHECK_EQ(files.users_of({1, 2}), std::set<int>{100});
  // Bound anew: the former is nobody's any more.
  std::shared_ptr<BoundFile> former = files.all()[0];
  REQUIRE(files.open({1, 2}, 4096, 2));
  CHECK(files.descriptors_of(100).empty());
  files.forget(*former);
  CHECK_FALSE(files.empty());
  files.forget(*files.all()[0]);
  CHECK(files.empty());
}
