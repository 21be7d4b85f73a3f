#include "tools/lab/storm_mover.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <numeric>
#include <random>

#include "tools/lab/lab_spec.h"
#include "tools/lab/process.h"

namespace mosix::lab {
namespace {

/// Orders that are under way at the same time: one that takes long must not hold up the others.
constexpr int kMovers = 4;
constexpr int kSliceMs = 20;  ///< of a pause, between two looks at whether to stop
constexpr size_t kMostLogLines = 100'000;

}  // namespace

int64_t StormFigures::total_cpu_away_ms() const {
  return std::accumulate(cpu_away_ms.begin(), cpu_away_ms.end(), int64_t{0},
                         [](int64_t sum, const auto& one) { return sum + one.second; });
}

void StormFigures::add(const StormFigures& other) {
  moves += other.moves;
  for (const auto& [reason, count] : other.refused) refused[reason] += count;
  for (const auto& [where, count] : other.seen) seen[where] += count;
  cpu_away_ms[0] += other.total_cpu_away_ms();
}

StormMover::StormMover(uint64_t seed, int interval_ms, int nodes)
    : seed_(seed), interval_ms_(interval_ms), nodes_(nodes) {}

void StormMover::start() {
  end_ = false;
  begun_ms_ = now_ms();
  for (int i = 0; i < kMovers; ++i)
    threads_.emplace_back([this, i] { run(seed_ + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u); });
}

void StormMover::stop() {
  end_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void StormMover::run(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int64_t> pause(0, int64_t{2} * interval_ms_ * kMovers);
  while (!end_) {
    int64_t until = now_ms() + pause(random);
    uint64_t choice = random();
    for (int64_t left; !end_ && (left = until - now_ms()) > 0;)
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min<int64_t>(left, kSliceMs)));
    if (Order order; !end_ && choose(choice, order)) carry_out(order);
  }
}

bool StormMover::choose(uint64_t random, Order& order) {
  Answer<Json> reply = ask_daemon({{"op", "processes"}}, kAskLimitMs);
  std::lock_guard lock(mutex_);
  if (!reply) {
    figures_.problem = reply.error().error.message();
    return false;
  }
  std::vector<Json> own;
  for (const Json& process : field_array(*reply, "processes")) {
    if (field_flag(process, "foreign")) continue;
    int64_t& away = figures_.cpu_away_ms[static_cast<int>(field_integer(process, "pid"))];
    away = std::max(away, field_integer(process, "cpu_away_ms"));
    ++figures_.seen[field_text(process, "where", "?")];
    own.push_back(process);
  }
  if (own.empty()) return false;
  const Json& process = own[random % own.size()];
  order.pid = static_cast<int>(field_integer(process, "pid"));
  order.program = field_text(process, "program", "?");
  order.from = field_text(process, "where", "?");
  // Home is one of the places, and where it is already is none.
  std::vector<std::string> places;
  for (int k = 1; k <= nodes_; ++k)
    if (std::string place = k == 1 ? "home" : node_name(k); place != order.from) places.push_back(place);
  if (places.empty()) return false;
  order.to = places[(random >> 32) % places.size()];
  return true;
}

void StormMover::carry_out(const Order& order) {
  Answer<Json> reply = ask_daemon({{"op", "migrate"}, {"pid", order.pid}, {"to", order.to}}, kMoveLimitMs);
  std::lock_guard lock(mutex_);
  if (reply) {
    ++figures_.moves;
    return note(order, fmt::format("moved, freeze {:.1f} ms", field_number(*reply, "freeze_ms")));
  }
  const Error& error = reply.error().error;
  bool chance = error.code == ESRCH || reply.error().exit == kExitNoProcess ||
                error.what.find(" is busy: ") != std::string::npos;
  if (!chance) ++figures_.refused[error.message()];
  note(order, "not moved: " + error.message());
}

/// mutex_ must be held.
void StormMover::note(const Order& order, const std::string& outcome) {
  if (figures_.log.size() >= kMostLogLines) return;
  figures_.log.push_back(fmt::format("{:9.3f} s  {} ({}) {} -> {}: {}",
                                     static_cast<double>(now_ms() - begun_ms_) / 1000, order.pid,
                                     printable(order.program), order.from, order.to, printable(outcome)));
}

}  // namespace mosix::lab
