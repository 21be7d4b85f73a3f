// Shared anonymous memory: found in maps, measured, its pages claimed once, made anew and filled.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "libmosix/process/shared_memory.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

using namespace mosix;

namespace {

char* shared_pages(uint64_t pages) {
  return static_cast<char*>(
      mmap(nullptr, pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

uint64_t address_of(const void* memory) { return reinterpret_cast<uint64_t>(memory); }

MapEntry entry_at(uint64_t address) {
  Result<std::vector<MapEntry>> maps = read_maps(getpid());
  REQUIRE(maps);
  for (const MapEntry& entry : *maps)
    if (entry.contains(address)) return entry;
  FAIL("no mapping there");
  return {};
}

ProcessMemory own_memory() {
  Result<ProcessMemory> memory = ProcessMemory::open(getpid());
  REQUIRE(memory);
  return std::move(*memory);
}

Area area_of(uint64_t start, uint64_t pages, uint64_t offset_pages, uint64_t inode = 7) {
  Area area;
  area.kind = AreaKind::kShared;
  area.start = start;
  area.end = start + pages * kPageBytes;
  area.offset = offset_pages * kPageBytes;
  area.file.device = 1;
  area.file.inode = inode;
  area.file.size = area.offset + pages * kPageBytes;
  return area;
}

}  // namespace

TEST_CASE("what is shared anonymous memory, and what is not") {
  char* anonymous = shared_pages(2);
  int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
  void* of_zero = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, zero, 0);
  void* private_zero = mmap(nullptr, kPageBytes, PROT_READ, MAP_PRIVATE, zero, 0);
  int memfd = memfd_create("somebody's", MFD_CLOEXEC);
  CHECK_EQ(ftruncate(memfd, kPageBytes), 0);
  void* of_memfd = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, memfd, 0);
  SharedPool pool;
  Result<int> ours = pool.open(area_of(0x10000, 1, 0));
  REQUIRE(ours);
  void* of_ours = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, *ours, 0);
  CHECK(is_shared_anonymous(entry_at(address_of(anonymous))));
  CHECK(is_shared_anonymous(entry_at(address_of(of_zero))));
  CHECK(is_shared_anonymous(entry_at(address_of(of_ours))));
  CHECK_FALSE(is_shared_anonymous(entry_at(address_of(private_zero))));
  CHECK_FALSE(is_shared_anonymous(entry_at(address_of(of_memfd))));
  CHECK_FALSE(is_shared_anonymous(entry_at(address_of(&zero))));

  Result<std::vector<MapEntry>> maps = read_maps(getpid());
  REQUIRE(maps);
  std::set<SharedKey> memory = shared_memory_in(*maps);
  CHECK_GE(memory.size(), 3);
  CHECK(maps_any_of(*maps, memory));
  CHECK_FALSE(maps_any_of(*maps, {}));
}

TEST_CASE("an area reaches as far as the memory, not as far as a mapping that has grown") {
  ProcessMemory memory = own_memory();
  for (uint64_t pages : {1, 2, 3, 8, 100}) {
    char* made = shared_pages(pages);
    for (uint64_t grown : {pages, pages + 1, pages + 7, 4 * pages}) {
      made = static_cast<char*>(mremap(made, pages * kPageBytes, grown * kPageBytes, MREMAP_MAYMOVE));
      Area area = shared_area(entry_at(address_of(made)), memory);
      CHECK_EQ(area.start, address_of(made));
      CHECK_EQ(area.end - area.start, grown * kPageBytes);
      CHECK_EQ(area.file.size, pages * kPageBytes);
      CHECK(check_shared_area(area));
      made = static_cast<char*>(mremap(made, grown * kPageBytes, pages * kPageBytes, MREMAP_MAYMOVE));
    }
    munmap(made, pages * kPageBytes);
  }
}

TEST_CASE("an area that another node has made up") {
  Area area = area_of(0x10000, 4, 2);
  CHECK(check_shared_area(area));
  area.file.size = kPageBytes;  // before it begins
  CHECK_FALSE(check_shared_area(area));
  area = area_of(0x10000, 4, 2);
  area.file.size += kPageBytes;
  CHECK_FALSE(check_shared_area(area));
  area = area_of(0x10000, 4, 2);
  area.offset += 1;
  CHECK_FALSE(check_shared_area(area));
  area = area_of(0x10000, 0, 0);
  CHECK_FALSE(check_shared_area(area));
  SharedPool pool;
  CHECK_FALSE(pool.open(area));
}

TEST_CASE("what mincore says becomes spans") {
  constexpr uint64_t kStart = 0x40000;
  std::vector<PageSpan> spans;
  const uint8_t first[] = {0, 1, 1, 0, 3};
  add_resident(kStart, first, sizeof first, spans);
  const uint8_t second[] = {1, 0, 2};
  add_resident(kStart + sizeof first * kPageBytes, second, sizeof second, spans);
  CHECK_EQ(spans, std::vector<PageSpan>{{kStart + kPageBytes, 2}, {kStart + 4 * kPageBytes, 2}});
}

TEST_CASE("each page is claimed once, whoever maps it where") {
  SharedClaims claims;
  Area one = area_of(0x100000, 8, 0), other = area_of(0x900000, 8, 4), foreign = area_of(0x100000, 8, 0, 8);
  CHECK_EQ(claims.claim(one, {one.start + 2 * kPageBytes, 4}),
           std::vector<PageSpan>{{one.start + 2 * kPageBytes, 4}});
  // Its pages 0 and 1 are the other's 4 and 5, which are taken.
  CHECK_EQ(claims.claim(other, {other.start, 8}), std::vector<PageSpan>{{other.start + 2 * kPageBytes, 6}});
  CHECK(claims.claim(one, {one.start + 2 * kPageBytes, 6}).empty());
  CHECK_EQ(claims.claim(one, {one.start, 8}), std::vector<PageSpan>{{one.start, 2}});
  CHECK_EQ(claims.claim(foreign, {foreign.start, 8}).size(), 1);
}

TEST_CASE("a pool has one piece for each memory, as large as the largest part of it") {
  auto pool = std::make_shared<SharedPool>();
  Area small = area_of(0x100000, 1, 0), large = area_of(0x200000, 4, 3), foreign = area_of(0x300000, 1, 0, 8);
  Result<int> first = pool->open(small), again = pool->open(large), other = pool->open(foreign);
  REQUIRE(first);
  REQUIRE(again);
  REQUIRE(other);
  CHECK_EQ(*first, *again);
  CHECK_NE(*first, *other);
  CHECK_EQ(lseek(*first, 0, SEEK_END), static_cast<off_t>(7 * kPageBytes));
  SharedRanges ranges(pool);
  ranges.add(small, *first);
  ranges.add(large, *first);
  bool inside = true;
  CHECK_EQ(ranges.part(0x100000 - kPageBytes, 4 * kPageBytes, &inside), kPageBytes);
  CHECK_FALSE(inside);
  CHECK_EQ(ranges.part(0x100000, 4 * kPageBytes, &inside), kPageBytes);
  CHECK(inside);
  CHECK_EQ(ranges.part(0x300000, 4 * kPageBytes, &inside), 4 * kPageBytes);
  CHECK_FALSE(inside);
  std::vector<uint8_t> page(kPageBytes, 'x');
  CHECK(ranges.put(0x200000 + kPageBytes, page.data(), page.size()));
  CHECK_FALSE(ranges.put(0x300000, page.data(), page.size()));
  char byte = 0;
  CHECK_EQ(pread(*first, &byte, 1, static_cast<off_t>(4 * kPageBytes)), 1);
  CHECK_EQ(byte, 'x');
}
