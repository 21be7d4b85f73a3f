// Runs a fuzz target without libFuzzer: on each of its seeds, and on so many inputs that a fixed generator
// makes of them by small changes. The same seed gives the same run, everywhere.
//
//   TARGET [--seed N] [--runs N]      a run
//   TARGET FILE...                    these inputs only (what libFuzzer has found)
//   TARGET --write-seeds DIRECTORY    a corpus for libFuzzer to begin from
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz_target.h"

namespace mosix::fuzz {
namespace {

struct Options {
  uint64_t seed = 1;
  uint64_t runs = 20000;
  std::string seed_directory;
  std::vector<std::string> files;
};

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const bool has_value = i + 1 < argc;
    if (strcmp(argv[i], "--seed") == 0 && has_value) {
      options.seed = strtoull(argv[++i], nullptr, 0);
    } else if (strcmp(argv[i], "--runs") == 0 && has_value) {
      options.runs = strtoull(argv[++i], nullptr, 0);
    } else if (strcmp(argv[i], "--write-seeds") == 0 && has_value) {
      options.seed_directory = argv[++i];
    } else if (argv[i][0] == '-') {
      return false;
    } else {
      options.files.emplace_back(argv[i]);
    }
  }
  return true;
}

/// Exactly as long as it is, so that a sanitizer sees a step beyond.
void run(const Input& input) {
  const Input exact(input);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

void change(Input& input, std::mt19937_64& random) {
  static constexpr uint64_t kValues[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff, UINT64_MAX};
  if (input.empty()) input.push_back(0);
  const size_t at = random() % input.size();
  switch (random() % 6) {
    case 0:
      input[at] = static_cast<uint8_t>(random());
      break;
    case 1:
      input[at] ^= static_cast<uint8_t>(1u << random() % 8);
      break;
    case 2:
      input.resize(at);
      break;
    case 3:
      input.insert(input.begin() + static_cast<long>(at), random() % 16, static_cast<uint8_t>(random()));
      break;
    case 4: {
      const uint64_t value = kValues[random() % std::size(kValues)];
      const size_t bytes = std::min<size_t>(size_t{1} << random() % 4, input.size() - at);
      memcpy(&input[at], &value, bytes);
      break;
    }
    default: {
      const size_t from = random() % input.size();
      const size_t bytes = std::min<size_t>(random() % 16, input.size() - std::max(at, from));
      memmove(&input[at], &input[from], bytes);
    }
  }
}

void run_random(const Options& options) {
  std::mt19937_64 random(options.seed);
  const std::vector<Input> from = seeds();
  for (const Input& seed : from) run(seed);
  for (uint64_t i = 0; i < options.runs; ++i) {
    Input input = from[random() % from.size()];
    for (uint64_t changes = random() % 8 + 1; changes > 0; --changes) change(input, random);
    run(input);
  }
  printf("%zu seeds, %llu changed inputs from seed %llu\n", from.size(),
         static_cast<unsigned long long>(options.runs), static_cast<unsigned long long>(options.seed));
}

int write_seeds(const std::string& directory) {
  int number = 0;
  for (const Input& seed : seeds()) {
    std::ofstream file(directory + "/seed_" + std::to_string(number++), std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    if (!file.flush()) return 1;
  }
  return 0;
}

int run_files(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::ifstream file(name, std::ios::binary);
    if (!file) return 1;
    run(Input(std::istreambuf_iterator<char>(file), {}));
  }
  return 0;
}

}  // namespace
}  // namespace mosix::fuzz

int main(int argc, char** argv) {
  mosix::fuzz::Options options;
  if (!mosix::fuzz::parse(argc, argv, options)) return 2;
  if (!options.seed_directory.empty()) return mosix::fuzz::write_seeds(options.seed_directory);
  if (!options.files.empty()) return mosix::fuzz::run_files(options.files);
  mosix::fuzz::run_random(options);
  return 0;
}
