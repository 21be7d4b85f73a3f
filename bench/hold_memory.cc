// hold_memory MEGABYTES [THREADS]: fills memory with numbers that no compression makes smaller and says
// "ready PID". Then, for each line on standard input: "touch N" writes to N kilobytes, "check" verifies
// everything and says "intact". With THREADS, each thread verifies and changes a share of it without end, and
// a wrong number ends the program with status 3. At the end of the input it verifies, says "intact" and exits
// with 0.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace {

uint64_t number_at(uint64_t index, uint64_t round) {
  uint64_t value = (index + 1) * 0x9e3779b97f4a7c15ull ^ round * 0xd1b54a32d192ed03ull;
  value ^= value >> 29;
  return value * 0xbf58476d1ce4e5b9ull;
}

/// A share of the memory: every word of a page is of the same round, which its first word's index gives.
struct Share {
  uint64_t* words = nullptr;
  uint64_t first = 0;  ///< index of words[0] in the whole
  uint64_t count = 0;
  std::vector<uint64_t> rounds;  ///< of each page

  static constexpr uint64_t kPageWords = 512;

  void write_page(uint64_t page, uint64_t round) {
    rounds[page] = round;
    for (uint64_t i = page * kPageWords; i < (page + 1) * kPageWords; ++i)
      words[i] = number_at(first + i, round);
  }
  bool page_is_right(uint64_t page) const {
    for (uint64_t i = page * kPageWords; i < (page + 1) * kPageWords; ++i)
      if (words[i] != number_at(first + i, rounds[page])) return false;
    return true;
  }
};

void require(bool right, const Share& share, uint64_t page) {
  if (right) return;
  fprintf(stderr, "hold_memory: page %llu of the share at %llu is wrong\n",
          static_cast<unsigned long long>(page), static_cast<unsigned long long>(share.first));
  _Exit(3);
}

void work(Share& share, const std::atomic<bool>& stop) {
  uint64_t step = 0;
  const uint64_t pages = share.rounds.size();
  while (!stop) {
    const uint64_t page = number_at(step, share.first) % pages;
    require(share.page_is_right(page), share, page);
    if (step % 8 == 0) share.write_page(page, share.rounds[page] + 1);
    ++step;
  }
}

void check_all(const std::vector<Share>& shares) {
  for (const Share& share : shares)
    for (uint64_t page = 0; page < share.rounds.size(); ++page)
      require(share.page_is_right(page), share, page);
}

void say(const char* text) {
  puts(text);
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t megabytes = argc > 1 ? strtoull(argv[1], nullptr, 10) : 1;
  const int threads = argc > 2 ? atoi(argv[2]) : 0;
  const uint64_t parts = threads > 0 ? static_cast<uint64_t>(threads) : 1;
  const uint64_t pages = megabytes * 256 / parts;
  auto* memory = static_cast<uint64_t*>(aligned_alloc(4096, parts * pages * 4096));
  if (!memory) return 1;
  std::vector<Share> shares(parts);
  for (uint64_t part = 0; part < parts; ++part) {
    Share& share = shares[part];
    share.words = memory + part * pages * Share::kPageWords;
    share.first = part * pages * Share::kPageWords;
    share.count = pages * Share::kPageWords;
    share.rounds.resize(pages);
    for (uint64_t page = 0; page < pages; ++page) share.write_page(page, 0);
  }
  std::atomic<bool> stop{false};
  std::vector<std::thread> workers;
  // The main thread reads; the last share has a worker only if there are threads at all.
  for (int t = 0; t < threads; ++t)
    workers.emplace_back([&, t] { work(shares[static_cast<size_t>(t)], stop); });
  printf("ready %d\n", static_cast<int>(getpid()));
  fflush(stdout);
  char line[64];
  uint64_t round = 1;
  while (fgets(line, sizeof line, stdin)) {
    if (strncmp(line, "touch ", 6) == 0 && threads == 0) {
      const uint64_t touched = strtoull(line + 6, nullptr, 10) / 4;
      for (uint64_t page = 0; page < touched && page < pages; ++page) shares[0].write_page(page, round);
      ++round;
      say("touched");
    } else if (strncmp(line, "check", 5) == 0 && threads == 0) {
      check_all(shares);
      say("intact");
    }
  }
  stop = true;
  for (std::thread& worker : workers) worker.join();
  check_all(shares);
  say("intact");
  return 0;
}
