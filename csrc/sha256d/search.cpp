#include "sha256d/search.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "sha256d/row.h"
#include "sha256d/sha256.h"

namespace ww {
namespace {

constexpr int64_t kPollNs = 20'000'000;
// A quantum is some 20 us of one thread. A thread is worth waking for four of them; chunks are claimed some 64 to a
// thread, within these bounds: at a search's end its threads wait for the last one's chunk, and a claim costs little.
constexpr uint64_t kQuantaPerThread = 4, kChunksPerThread = 64, kMinQuanta = 1, kMaxQuanta = 8;

// Rectangles are at most 2^32 x 2^32: their number of pairs saturates instead of wrapping.
uint64_t pairs(const Rect& r) {
  uint64_t n;
  return __builtin_mul_overflow(r.count, r.versions, &n) ? std::numeric_limits<uint64_t>::max() : n;
}

// Quanta of work in a chunk.
uint64_t chunk_quanta(const Rect& rect, const Kernel& kernel, int threads) {
  const uint64_t share = pairs(rect) / (kChunksPerThread * static_cast<uint64_t>(threads) * kernel.quantum);
  return std::clamp(share, kMinQuanta, kMaxQuanta);
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

// Versions tested in the same way: strips of so many side by side, each cut into chunks of so many nonces.
struct Band {
  uint64_t number;  // the first version's
  uint64_t strips;
  uint32_t versions;         // in a strip
  uint64_t nonces, in_strip; // of a chunk; chunks of a strip
  uint64_t chunks() const { return strips * in_strip; }
};

// As many versions side by side as the kernel takes, then what is left in a narrower strip, then one by one.
std::vector<Band> bands(const Rect& rect, const Kernel& kernel, uint64_t quanta) {
  std::vector<Band> out;
  uint64_t number = rect.version_first, left = rect.versions;
  while (left) {
    const uint32_t versions = kernel.side_by_side(left);
    const uint64_t nonces = std::max<uint64_t>(1, quanta * kernel.quantum / versions), strips = left / versions;
    out.push_back({number, strips, versions, nonces, (rect.count + nonces - 1) / nonces});
    number += strips * versions, left -= strips * versions;
  }
  return out;
}

// A stretch of one strip's nonces.
struct Chunk {
  uint64_t number, first, end;
  uint32_t versions;
};

// What one worker has of its own.
struct Worker {
  std::vector<Placed> hits;
  std::vector<Rect> remaining;
  std::vector<Placed> same_nonce;
  Run run;  // its candidates are not worth clearing
  uint64_t number = ~uint64_t{0};  // of what follows, which the next chunk is likely to want again
  uint32_t versions = 0;
  Row row{};
  Rows rows{};
};

// What the workers of one search share. Chunks are claimed in order.
class Search {
 public:
  Search(const Work& work, const Rect& rect, const Kernel& kernel, const Controls& controls, int threads)
      : work_(work), rect_(rect), kernel_(kernel), controls_(controls),
        bands_(bands(rect, kernel, chunk_quanta(rect, kernel, threads))) {
    for (const Band& band : bands_) chunks_ += band.chunks();
  }

  void work();  // a worker's whole part
  Found finish();

 private:
  Chunk chunk(uint64_t index) const;
  bool halted();
  void poll();
  void prepare(const Chunk& c, Worker& worker) const;
  uint64_t test(const Chunk& c, uint64_t at, Worker& worker);
  void leave(const Chunk& c, uint64_t at, uint64_t within, Worker& worker) const;
  std::vector<Rect> unclaimed() const;

  const Work& work_;
  const Rect& rect_;
  const Kernel& kernel_;
  const Controls& controls_;
  const std::vector<Band> bands_;
  uint64_t chunks_ = 0;
  const std::thread::id caller_ = std::this_thread::get_id();
  int64_t polled_ns_ = now_ns();
  alignas(64) std::atomic<uint64_t> next_{0};
  alignas(64) std::atomic<uint64_t> found_{0};
  std::atomic<uint32_t> halt_{0};
  static constexpr std::atomic<uint32_t> kNever{0};
  const uint32_t* const ends_[2] = {as_word(controls_.stop ? *controls_.stop : kNever), as_word(halt_)};
  std::mutex mutex_;  // of what follows: each worker adds what it has at its end
  std::vector<Placed> hits_;
  std::vector<Rect> remaining_;
};

Chunk Search::chunk(uint64_t index) const {
  auto band = bands_.begin();
  for (; index >= band->chunks(); ++band) index -= band->chunks();
  const uint64_t begin = index % band->in_strip * band->nonces;
  return {band->number + index / band->in_strip * band->versions, rect_.first + begin,
          rect_.first + std::min(begin + band->nonces, rect_.count), band->versions};
}

// A stop once seen holds, also where its word is cleared at once: so each worker leaves one rectangle at most.
bool Search::halted() {
  if (controls_.stop && controls_.stop->load(std::memory_order_relaxed) != 0)
    halt_.store(1, std::memory_order_relaxed);
  return halt_.load(std::memory_order_relaxed) != 0;
}

void Search::poll() {
  if (!controls_.poll || std::this_thread::get_id() != caller_ || now_ns() - polled_ns_ < kPollNs) return;
  polled_ns_ = now_ns();
  if (controls_.poll()) halt_.store(1, std::memory_order_relaxed);
}

void Search::prepare(const Chunk& c, Worker& worker) const {
  if (c.number == worker.number && c.versions == worker.versions) return;
  worker.number = c.number, worker.versions = c.versions;
  if (c.versions == 1) worker.row = make_row(work_, version_at(work_, c.number));
  else worker.rows = make_rows(work_, c.number, c.versions);
}

// Tests a chunk from nonce `at` on and returns how many pairs, counted nonce by nonce, were tested: fewer than all where
// the kernel's run ended early, or where the last wanted hit was found in it, here or by another worker at the same time.
// Hits of one nonce are claimed together, so that of all workers at most one ends within a nonce.
uint64_t Search::test(const Chunk& c, uint64_t at, Worker& worker) {
  Run& run = worker.run;
  run.first = static_cast<uint32_t>(at);
  run.count = static_cast<uint32_t>(c.end - at);
  const uint32_t tested = c.versions == 1 ? kernel_.scan(worker.row, run) : kernel_.roll(worker.rows, run);
  uint32_t* const end = run.candidates + run.found;
  std::sort(run.candidates, end);
  for (const uint32_t* candidate = run.candidates; candidate != end;) {
    const uint32_t n = *candidate / c.versions;
    worker.same_nonce.clear();
    for (; candidate != end && *candidate / c.versions == n; ++candidate) {
      const uint64_t number = c.number + *candidate % c.versions;
      Hit hit{run.first + n, version_at(work_, number), {}};
      uint8_t header[80];
      header_with(work_, hit.version, hit.nonce, header);
      sha256d(header, hit.hash);
      if (meets_target(hit.hash, work_.target)) worker.same_nonce.push_back({number, hit});
    }
    const uint64_t hits = worker.same_nonce.size(), before = found_.fetch_add(hits, std::memory_order_relaxed);
    const uint64_t wanted = before < controls_.max_hits ? std::min(hits, controls_.max_hits - before) : 0;
    worker.hits.insert(worker.hits.end(), worker.same_nonce.begin(),
                       worker.same_nonce.begin() + static_cast<std::ptrdiff_t>(wanted));
    if (before + hits < controls_.max_hits) continue;
    halt_.store(1, std::memory_order_relaxed);
    if (wanted == hits) return uint64_t{n + 1} * c.versions;
    return uint64_t{n} * c.versions + (wanted ? worker.same_nonce[wanted - 1].number - c.number + 1 : 0);
  }
  return uint64_t{tested} * c.versions;
}

// Notes what of a chunk is left from nonce `at` on, of which so many versions are done.
void Search::leave(const Chunk& c, uint64_t at, uint64_t within, Worker& worker) const {
  if (within) {
    worker.remaining.push_back({at, 1, c.number + within, c.versions - within});
    ++at;
  }
  if (at < c.end) worker.remaining.push_back({at, c.end - at, c.number, c.versions});
}

void Search::work() try {
  Worker worker;
  worker.run.ends[0] = ends_[0], worker.run.ends[1] = ends_[1];
  while (!halted()) {
    const uint64_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= chunks_) break;
    const Chunk c = chunk(index);
    prepare(c, worker);
    uint64_t at = c.first, within = 0;
    while (at < c.end && within == 0 && !halted()) {
      const uint64_t done = test(c, at, worker);
      if (controls_.progress) controls_.progress->fetch_add(done, std::memory_order_relaxed);
      poll();
      at += done / c.versions, within = done % c.versions;
    }
    leave(c, at, within, worker);
  }
  std::lock_guard lock(mutex_);
  hits_.insert(hits_.end(), worker.hits.begin(), worker.hits.end());
  remaining_.insert(remaining_.end(), worker.remaining.begin(), worker.remaining.end());
} catch (...) {
  halt_.store(1, std::memory_order_relaxed);  // no memory for hits: the others need not go on
  throw;
}

// What no worker has claimed: the rest of one strip, and the strips below it.
std::vector<Rect> Search::unclaimed() const {
  const uint64_t next = next_.load(std::memory_order_relaxed);
  if (next >= chunks_) return {};
  std::vector<Rect> rest;
  const Chunk c = chunk(next);
  uint64_t number = c.number;
  if (c.first > rect_.first) {
    rest.push_back({c.first, rect_.first + rect_.count - c.first, number, c.versions});
    number += c.versions;
  }
  if (const uint64_t below = rect_.version_first + rect_.versions - number)
    rest.push_back({rect_.first, rect_.count, number, below});
  return rest;
}

// Joins what lies end to end in one strip.
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
