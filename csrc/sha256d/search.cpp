#include "sha256d/search.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "sha256d/row.h"
#include "sha256d/sha256.h"

namespace ww {
namespace {

constexpr int64_t kPollNs = 20'000'000;
// A thread is worth waking for four quanta (some 80 us); chunks are claimed some 16 to a thread, within these bounds.
constexpr uint64_t kQuantaPerThread = 4, kChunksPerThread = 16, kMinQuanta = 2, kMaxQuanta = 64;

// Rectangles are at most 2^32 x 2^32: their number of pairs saturates instead of wrapping.
uint64_t pairs(const Rect& r) {
  uint64_t n;
  return __builtin_mul_overflow(r.count, r.versions, &n) ? std::numeric_limits<uint64_t>::max() : n;
}

uint64_t chunk_nonces(const Rect& rect, const Kernel& kernel, int threads) {
  const uint64_t share = pairs(rect) / (kChunksPerThread * static_cast<uint64_t>(threads) * kernel.quantum);
  return std::clamp(share, kMinQuanta, kMaxQuanta) * kernel.quantum;
}

// How many threads, of those offered, the rectangle is worth.
int threads_for(const Rect& rect, const Kernel& kernel, int threads) {
  const uint64_t worth = std::max<uint64_t>(1, pairs(rect) / (kQuantaPerThread * kernel.quantum));
  return static_cast<int>(std::min<uint64_t>(worth, static_cast<uint64_t>(std::max(threads, 1))));
}

// One hit with its place in the order of the search.
struct Placed {
  uint64_t number;
  Hit hit;
};

// What the workers of one search share. A chunk is a stretch of one version's row; chunks are claimed in order.
class Search {
 public:
  Search(const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls, int threads)
      : work_(work), rect_(rect), kernel_(kernel), controls_(controls), chunk_(chunk_nonces(rect, kernel, threads)),
        chunks_in_row_((rect.count + chunk_ - 1) / chunk_), chunks_(chunks_in_row_ * rect.versions) {}

  void work();  // a worker's whole part
  Found finish();

 private:
  struct Chunk { uint64_t number, first, end; };
  Chunk chunk(uint64_t index) const;
  bool halted();
  void poll();
  uint64_t test(const Row& row, uint64_t number, uint64_t first, uint32_t count, std::vector<Placed>& hits,
                std::vector<uint32_t>& candidates);
  std::vector<Rect> unclaimed() const;

  const Work& work_;
  const Rect& rect_;
  const Kernel& kernel_;
  const Controls& controls_;
  const uint64_t chunk_, chunks_in_row_, chunks_;
  const std::thread::id caller_ = std::this_thread::get_id();
  int64_t polled_ns_ = now_ns();
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<uint64_t> found_{0};
  std::atomic<bool> halt_{false};
  std::mutex mutex_;  // of what follows: each worker adds what it has at its end
  std::vector<Placed> hits_;
  std::vector<Rect> remaining_;
};

Search::Chunk Search::chunk(uint64_t index) const {
  const uint64_t begin = index % chunks_in_row_ * chunk_;
  return {rect_.version_first + index / chunks_in_row_, rect_.first + begin,
          rect_.first + std::min(begin + chunk_, rect_.count)};
}

// A stop once seen holds, also where its word is cleared at once: so each worker leaves one rectangle at most.
bool Search::halted() {
  if (controls_.stop && controls_.stop->load(std::memory_order_relaxed) != 0)
    halt_.store(true, std::memory_order_relaxed);
  return halt_.load(std::memory_order_relaxed);
}

void Search::poll() {
  if (!controls_.poll || std::this_thread::get_id() != caller_ || now_ns() - polled_ns_ < kPollNs) return;
  polled_ns_ = now_ns();
  if (controls_.poll()) halt_.store(true, std::memory_order_relaxed);
}

// Tests a quantum and returns the end of what was tested: short of the whole where the last wanted hit was found in it,
// here or by another worker at the same time.
uint64_t Search::test(const Row& row, uint64_t number, uint64_t first, uint32_t count, std::vector<Placed>& hits,
                      std::vector<uint32_t>& candidates) {
  const uint32_t n = kernel_.scan(row, static_cast<uint32_t>(first), count, candidates.data());
  for (uint32_t i = 0; i < n; ++i) {
    Hit hit{candidates[i], version_at(work_, number), {}};
    uint8_t header[80];
    header_with(work_, hit.version, hit.nonce, header);
    sha256d(header, hit.hash);
    if (!meets_target(hit.hash, work_.target)) continue;
    const uint64_t before = found_.fetch_add(1, std::memory_order_relaxed);
    if (before + 1 >= controls_.max_hits) halt_.store(true, std::memory_order_relaxed);
    if (before >= controls_.max_hits) return hit.nonce;
    hits.push_back({number, hit});
    if (before + 1 == controls_.max_hits) return uint64_t{hit.nonce} + 1;
  }
  return first + count;
}

void Search::work() try {
  std::vector<Placed> hits;
  std::vector<Rect> remaining;
  std::vector<uint32_t> candidates(kernel_.quantum);
  Row row{};
  uint64_t row_number = ~uint64_t{0};
  while (!halted()) {
    const uint64_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= chunks_) break;
    const Chunk c = chunk(index);
    if (c.number != row_number) row = make_row(work_, version_at(work_, c.number)), row_number = c.number;
    uint64_t at = c.first;
    while (at < c.end && !halted()) {
      const auto count = static_cast<uint32_t>(std::min<uint64_t>(kernel_.quantum, c.end - at));
      const uint64_t end = test(row, c.number, at, count, hits, candidates);
      if (controls_.progress) controls_.progress->fetch_add(end - at, std::memory_order_relaxed);
      at = end;
      poll();
    }
    if (at < c.end) remaining.push_back({at, c.end - at, c.number, 1});
  }
  std::lock_guard lock(mutex_);
  hits_.insert(hits_.end(), hits.begin(), hits.end());
  remaining_.insert(remaining_.end(), remaining.begin(), remaining.end());
} catch (...) {
  halt_.store(true, std::memory_order_relaxed);  // no memory for hits: the others need not go on
  throw;
}

// What no worker has claimed: the rest of one row, and the rows below it.
std::vector<Rect> Search::unclaimed() const {
  const uint64_t next = next_.load(std::memory_order_relaxed);
  if (next >= chunks_) return {};
  std::vector<Rect> rest;
  const Chunk c = chunk(next);
  uint64_t row = c.number;
  const uint64_t end = rect_.first + rect_.count;
  if (c.first > rect_.first) rest.push_back({c.first, end - c.first, row++, 1});
  if (const uint64_t below = rect_.version_first + rect_.versions - row)
    rest.push_back({rect_.first, rect_.count, row, below});
  return rest;
}

// Joins what lies end to end in one row.
std::vector<Rect> joined(std::vector<Rect> rects) {
  std::sort(rects.begin(), rects.end(), [](const Rect& a, const Rect& b) {
    return a.version_first != b.version_first ? a.version_first < b.version_first : a.first < b.first;
  });
  std::vector<Rect> out;
  for (const Rect& r : rects) {
    if (!out.empty() && out.back().version_first == r.version_first && out.back().versions == r.versions &&
        out.back().first + out.back().count == r.first)
      out.back().count += r.count;
    else out.push_back(r);
  }
  return out;
}

Found Search::finish() {
  Found found;
  std::sort(hits_.begin(), hits_.end(), [](const Placed& a, const Placed& b) {
    return a.number != b.number ? a.number < b.number : a.hit.nonce < b.hit.nonce;
  });
  for (const Placed& p : hits_) found.hits.push_back(p.hit);
  for (const Rect& r : unclaimed()) remaining_.push_back(r);
  found.remaining = joined(std::move(remaining_));
  found.halted = halt_.load(std::memory_order_relaxed);
  found.hashes = rect_.count * rect_.versions;  // modulo 2^64, as is what is taken off
  for (const Rect& r : found.remaining) found.hashes -= r.count * r.versions;
  return found;
}

// By `size` workers of the team at most.
Found scan_by(Team& team, int size, const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls) {
  if (rect.count == 0 || rect.versions == 0) return {};
  const int workers = threads_for(rect, kernel, size);
  Search search(work, rect, kernel, controls, workers);
  // Every helper gets an item wherever it is more than the caller alone, so that the caller has one, too, and polls.
  team.run(workers == 1 ? 1 : size, [&](int) { search.work(); });
  return search.finish();
}

}  // namespace

bool is_valid(const Work& work, const Rect& r) {
  const uint64_t versions = version_count(work.version_mask);
  return r.first <= kNonces && r.count <= kNonces - r.first && r.version_first <= versions &&
         r.versions <= versions - r.version_first;
}

Found scan(Team& team, const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls) {
  return scan_by(team, team.size(), work, rect, kernel, controls);
}

// Within another team's lifetime `team` is that one, which may be larger than asked for.
Found search(const Work& work, const Rect& rect, const Kernel& kernel, int threads, const Controls& controls) {
  const int wanted = threads_for(rect, kernel, threads > 0 ? threads : default_threads());
  Team team(wanted);
  return scan_by(team, std::min(wanted, team.size()), work, rect, kernel, controls);
}

}  // namespace ww
