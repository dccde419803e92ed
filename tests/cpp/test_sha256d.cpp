// Kernels against the plain scalar code; searches and jobs tested, stopped and taken up again, pair by pair.
#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include "check.h"
#include "sha256d/job.h"
#include "sha256d/row.h"
#include "sha256d/sha256.h"

using namespace ww;

static Work make_work(uint8_t target_top) {
  Work work{};
  for (int i = 0; i < 80; ++i) work.header[i] = static_cast<uint8_t>(29 * i + 3);
  std::memset(work.target, 0xff, 32);
  work.target[31] = target_top;
  work.version_mask = 0x0007e000;  // 64 versions
  return work;
}

static Found search_all(const Work& work, const std::vector<Rect>& rects, const Kernel& kernel) {
  Found all;
  for (const Rect& r : rects) {
    const Found found = search(work, r, kernel, 1, {});
    CHECK(found.remaining.empty());
    all.hits.insert(all.hits.end(), found.hits.begin(), found.hits.end());
    all.hashes += found.hashes;
  }
  return all;
}

static bool less(const Hit& a, const Hit& b) {
  return std::tie(a.version, a.nonce) < std::tie(b.version, b.nonce);
}

static bool equal(std::vector<Hit> a, std::vector<Hit> b) {
  std::sort(a.begin(), a.end(), less);
  std::sort(b.begin(), b.end(), less);
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Hit& x, const Hit& y) {
    return x.nonce == y.nonce && x.version == y.version && std::memcmp(x.hash, y.hash, 32) == 0;
  });
}

static void known_answer() {  // Bitcoin's genesis block
  const char* hex = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
                    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
  uint8_t header[80], hash[32];
  for (int i = 0; i < 80; ++i) {
    unsigned byte;
    CHECK(std::sscanf(hex + 2 * i, "%2x", &byte) == 1);
    header[i] = static_cast<uint8_t>(byte);
  }
  sha256d(header, hash);
  CHECK(hash[0] == 0x6f && hash[1] == 0xe2 && hash[26] == 0x19 && hash[27] == 0 && hash[31] == 0);
}

static void whole_equals_scalar(const Kernel& kernel) {
  const Work work = make_work(0x07);
  for (const Rect& rect : {Rect{kNonces - 3000, 3000, 1, 3}, Rect{kNonces - 211, 211, 1, 61}, Rect{kNonces - 600, 600, 0, 32}}) {
    const Found whole = search_all(work, {rect}, kernel);
    CHECK(whole.hashes == rect.count * rect.versions && whole.hits.size() > 100);
    size_t next = 0;
    for (uint64_t number = rect.version_first; number < rect.version_first + rect.versions; ++number)
      for (uint64_t nonce = rect.first; nonce < rect.first + rect.count; ++nonce) {
        uint8_t header[80], hash[32];
        header_with(work, version_at(work, number), static_cast<uint32_t>(nonce), header);
        sha256d(header, hash);
        if (!meets_target(hash, work.target)) continue;
        const Hit& hit = whole.hits.at(next++);
        CHECK(hit.nonce == nonce && hit.version == version_at(work, number) && std::memcmp(hit.hash, hash, 32) == 0);
      }
    CHECK(next == whole.hits.size());
  }
}

// A kernel's run that ends early, for want of room or by either word: what it says was tested is what was, exactly.
static void runs_end_early(const Kernel& kernel) {
  const uint32_t versions = kernel.side_by_side(64);
  const auto run_from = [&](const Work& work, Run& run) {
    return versions == 1 ? kernel.scan(make_row(work, version_at(work, 0)), run)
                         : kernel.roll(make_rows(work, 0, versions), run);
  };
  uint32_t words[2] = {0, 0};
  auto run = std::make_unique<Run>(Run{3, 3 * kRoom, {&words[0], &words[1]}, 0, {}});
  Work all = make_work(0xff);
  const uint32_t done = run_from(all, *run);  // everything is a candidate
  CHECK(done >= kRoom / versions / 2 && run->found == done * versions && run->found <= kRoom);
  std::sort(run->candidates, run->candidates + run->found);
  for (uint32_t i = 0; i < run->found; ++i) CHECK(run->candidates[i] == i);

  const Work some = make_work(0x00);
  for (const int which : {0, 1}) {
    run->count = uint32_t{1} << 22;
    std::thread stopper([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(500));
      __atomic_store_n(&words[which], 1, __ATOMIC_RELAXED);
    });
    const uint32_t tested = run_from(some, *run);
    stopper.join();
    std::vector<Hit> hits = search(some, {run->first, std::max(tested, 1u), 0, versions}, kernel, 1, {}).hits;
    if (tested == 0) hits.clear();
    CHECK(tested <= run->count && (tested == run->count || run->found <= kRoom));
    uint32_t found = 0;
    for (uint32_t i = 0; i < run->found; ++i) {
      CHECK(run->candidates[i] < tested * versions);
      uint8_t header[80], hash[32];
      header_with(some, version_at(some, run->candidates[i] % versions), run->first + run->candidates[i] / versions, header);
      sha256d(header, hash);
      found += meets_target(hash, some.target);
    }
    CHECK(found == hits.size());
    CHECK(run_from(some, *run) < 64);  // the word is still up: what was begun, at most
    words[which] = 0;
  }
}

// Helper threads start when first wanted: eight quanta are worth two threads, one pair less is not. To be called first.
static void small_searches_start_no_threads() {
  const auto threads = [] {
    const std::filesystem::directory_iterator all("/proc/self/task");
    return std::distance(begin(all), end(all));
  };
  const auto before = threads();
  for (const Kernel* kernel : usable_kernels())
    search(make_work(0), {0, 8 * kernel->quantum - 1, 0, 1}, *kernel, 8, {});
  CHECK(threads() == before);
  search(make_work(0), {0, 8 * usable_kernels()[0]->quantum, 0, 1}, *usable_kernels()[0], 8, {});
  CHECK(threads() > before);  // a sanitizer may start one of its own with the first
}

static void stopped_and_taken_up(const Kernel& kernel, const Rect& rect, int threads, unsigned seed) {
  const Work work = make_work(0x00);
  std::mt19937 random(seed);
  std::atomic<uint32_t> stop{0};
  Controls controls;
  controls.stop = &stop;
  std::thread stopper([&, wait_us = random() % 2000] {
    std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
    stop = 1;
  });
  Found found = search(work, rect, kernel, threads, controls);
  stopper.join();
  CHECK(found.remaining.size() <= static_cast<size_t>(threads) + 3);
  const Found rest = search_all(work, found.remaining, kernel);
  CHECK(found.hashes + rest.hashes == rect.count * rect.versions);
  found.hits.insert(found.hits.end(), rest.hits.begin(), rest.hits.end());
  CHECK(equal(found.hits, search_all(work, {rect}, kernel).hits));
}

// A stop word that is cleared again at once, from a thread that goes on doing so; and a search within a larger team.
static void remaining_stays_small(const Kernel& kernel) {
  Work work = make_work(0x00);
  std::memset(work.target, 0, 32);
  std::atomic<uint32_t> stop{0};
  std::atomic<bool> end{false};
  std::thread blinker([&] {
    for (; !end; std::this_thread::sleep_for(std::chrono::microseconds(50))) {
      stop = 1;
      for (int i = 0; i < 300; ++i) asm volatile("");
      stop = 0;
    }
  });
  Controls controls;
  controls.stop = &stop;
  for (int i = 0; i < 20; ++i) CHECK(search(work, {0, 1 << 19, 0, 4}, kernel, 2, controls).remaining.size() <= 4);
  end = true;
  blinker.join();
  stop = 0;
  Team outer(4);
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    stop = 1;
  });
  CHECK(search(work, {0, kNonces, 0, 4}, kernel, 1, controls).remaining.size() <= 3);
  stopper.join();
}

// What a worker throws (for want of memory, say), the search throws, on however many threads.
static void throws(const Kernel& kernel) {
  for (int threads : {1, 3}) {
    Controls controls;
    int polls = 0;
    controls.poll = [&]() -> bool { return ++polls < 2 ? false : throw std::bad_alloc(); };
    bool thrown = false;
    try {
      search(make_work(0x00), {0, kNonces, 0, 4}, kernel, threads, controls);
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    CHECK(thrown);
  }
}

static void limited(const Kernel& kernel, const Rect& rect, int threads, uint64_t max_hits) {
  const Work work = make_work(0x03);
  Controls controls;
  controls.max_hits = max_hits;
  std::atomic<uint64_t> progress{0};
  controls.progress = &progress;
  Found found = search(work, rect, kernel, threads, controls);
  CHECK(found.hits.size() == max_hits && progress == found.hashes);
  CHECK(found.remaining.size() <= static_cast<size_t>(threads) + 3);
  const Found rest = search_all(work, found.remaining, kernel);
  found.hits.insert(found.hits.end(), rest.hits.begin(), rest.hits.end());
  CHECK(found.hashes + rest.hashes == rect.count * rect.versions);
  CHECK(equal(found.hits, search_all(work, {rect}, kernel).hits));
}

// A job yielded at random moments: what it tested is the tiling's front less what was given back.
static void job_partitions(const Kernel& kernel, int threads) {
  Work work = make_work(0x00);
  Job job(work, kernel);
  std::mt19937 random(7);
  uint64_t before = 0;
  for (int i = 0; i < 12; ++i) {
    YieldFlag yield{0};
    std::thread yielder([&, wait_us = random() % 1500] {
      std::this_thread::sleep_for(std::chrono::microseconds(wait_us));
      yield = 1;
    });
    {
      Team team(threads);
      job.run(team, yield);
    }
    yielder.join();
    CHECK(job.units() >= before);
    before = job.units();
  }
  std::vector<Hit> hits;
  for (const JobHit& h : job.take_hits()) hits.push_back(h.hit);
  CHECK(job.take_hits().empty());
  // All in the first piece: its tested part, and the search of it.
  const uint64_t versions = job.next_fresh().rect.version_first;
  CHECK(versions == kernel.side_by_side(64));
  std::vector<Rect> open;
  for (const Piece& piece : job.given_back()) open.push_back(piece.rect);
  std::sort(open.begin(), open.end(), [](const Rect& a, const Rect& b) { return a.first < b.first; });
  std::vector<Rect> tested;
  uint64_t at = 0, pairs = 0;
  for (const Rect& r : open) {
    CHECK(r.first >= at && r.version_first == 0 && r.versions == versions);
    if (r.first > at) tested.push_back({at, r.first - at, 0, versions});
    pairs += (r.first - at) * versions;
    at = r.first + r.count;
  }
  CHECK(at == kNonces && pairs == job.units());
  CHECK(equal(hits, search_all(work, tested, kernel).hits));
}

static void job_tiles(const Kernel& kernel) {
  Work work = make_work(0x00);
  std::memset(work.header + 68, 0xff, 4);  // the time wraps
  Job job(work, kernel);
  for (uint32_t time : {0xffffffffu, 0u, 1u})
    for (uint64_t version = 0; version < 64; version += kernel.side_by_side(64)) {
      const Piece piece = job.take();
      CHECK(piece.time == time && piece.rect.version_first == version && piece.rect.count == kNonces);
      CHECK(piece.rect.versions == kernel.side_by_side(64));
    }
  job.give_back({5, {1, 2, 3, 1}});
  job.give_back({5, {1, 0, 3, 1}});
  CHECK(job.take().time == 5 && job.take().time == 2);
}

int main() {
  known_answer();
  small_searches_start_no_threads();
  CHECK(usable_kernels().size() == supported_kernels().size());  // none failed its self-test
  for (const Kernel* kernel : usable_kernels()) {
    CHECK(self_test(*kernel));
    whole_equals_scalar(*kernel);
    runs_end_early(*kernel);
    for (int threads : {1, 2, 3}) {
      for (unsigned seed = 0; seed < 3; ++seed) {
        stopped_and_taken_up(*kernel, {12345, 50'000, 0, 3}, threads, seed);
        stopped_and_taken_up(*kernel, {12345, 3'000, 2, 61}, threads, seed);
      }
      for (uint64_t max_hits : {1, 2, 77}) {
        limited(*kernel, {7, 5'000, 0, 4}, threads, max_hits);
        limited(*kernel, {7, 400, 1, 61}, threads, max_hits);
      }
      job_partitions(*kernel, threads);
    }
    job_tiles(*kernel);
    remaining_stays_small(*kernel);
    throws(*kernel);
  }
  bool refused = false;
  try {
    choose_kernel("nonesuch");
  } catch (const UnsupportedIsa&) {
    refused = true;
  }
  CHECK(refused);
  return 0;
}
