// The GPU search on the fake driver, which this program is linked with: dlopen() then finds it as libcuda.so.1. Random
// works, shapes, limits and stops, held against the search on the CPU.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "check.h"
#include "cuda/job.h"
#include "random.h"
#include "sha256d/row.h"

using ww::Found;
using ww::Hit;
using ww::Rect;
using ww::Work;

static Work any_work(Random& random) {
  Work work{};
  for (uint8_t& byte : work.header) byte = static_cast<uint8_t>(random.next());
  std::memset(work.target, 0xff, sizeof work.target);
  const int zero_bits = random.below(13);
  for (int i = 0; i < zero_bits; ++i) work.target[31 - i / 8] = static_cast<uint8_t>(work.target[31 - i / 8] >> 1);
  work.version_mask = 0x1fffe000;
  return work;
}

static Found by_cpu(const Work& work, const Rect& rect) {
  return ww::search(work, rect, ww::choose_kernel("portable"), 1, {});
}

static bool is_within(const std::vector<Rect>& rects, uint64_t number, uint64_t nonce) {
  return std::any_of(rects.begin(), rects.end(), [&](const Rect& r) {
    return r.first <= nonce && nonce < r.first + r.count && r.version_first <= number &&
           number < r.version_first + r.versions;
  });
}

static bool same(const Hit& a, const Hit& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

// What was found and what remains make up the whole: hits are those outside what remains, and it does not overlap.
static void check_partition(const Work& work, const Rect& rect, const Found& found) {
  uint64_t left = 0;
  for (const Rect& r : found.remaining) left += r.count * r.versions;
  CHECK(found.hashes == rect.count * rect.versions - left);
  uint64_t inside = 0;
  for (uint64_t v = rect.version_first; v < rect.version_first + rect.versions; ++v)
    for (uint64_t n = rect.first; n < rect.first + rect.count; ++n) inside += is_within(found.remaining, v, n);
  CHECK(inside == left);

  std::vector<Hit> expected;
  uint64_t number = rect.version_first;
  for (const Hit& hit : by_cpu(work, rect).hits) {
    while (ww::version_at(work, number) != hit.version) ++number;
    if (!is_within(found.remaining, number, hit.nonce)) expected.push_back(hit);
  }
  CHECK(std::equal(found.hits.begin(), found.hits.end(), expected.begin(), expected.end(), same));
}

static ww::cuda::Shape any_shape(Random& random) {
  ww::cuda::Shape shape;
  shape.threads = random.below(2) ? 32 : 64;
  shape.lanes = shape.threads * static_cast<uint32_t>(1 + random.below(3));
  shape.blocks_per_sm = static_cast<uint32_t>(1 + random.below(3));
  shape.chunk = static_cast<uint32_t>(1 + random.below(9));
  const uint32_t capacities[] = {1, 3, 64, 4096};
  shape.capacity = capacities[random.below(4)];
  return shape;
}

static void any_search(Random& random) {
  const Work work = any_work(random);
  Rect rect{0, static_cast<uint64_t>(random.below(400)), static_cast<uint64_t>(random.below(1000)),
            static_cast<uint64_t>(random.below(3) ? 1 + random.below(3) : 1 + random.below(140))};
  if (rect.versions > 4) rect.count %= 40;
  rect.first = random.below(4) ? random.next() % (ww::kNonces - rect.count) : ww::kNonces - rect.count;
  ww::cuda::Gpu gpu(0, "any", any_shape(random));
  std::atomic<uint32_t> stop{0};
  std::atomic<uint64_t> progress{0};
  const uint64_t max_hits = random.below(3) ? ww::kUnlimited : static_cast<uint64_t>(1 + random.below(30));
  std::thread stopper;
  if (random.below(3) == 0)
    stopper = std::thread([&stop, us = random.below(3000)] {
      std::this_thread::sleep_for(std::chrono::microseconds(us));
      stop.store(1);
    });
  const Found found = ww::cuda::search(gpu, work, rect, {&stop, max_hits, &progress, {}});
  if (stopper.joinable()) stopper.join();
  check_partition(work, rect, found);
  CHECK(progress.load() == found.hashes && found.hits.size() <= max_hits);
  CHECK(found.remaining.empty() || found.halted);
}

// A job that is stopped again and again, past its share's end: header time moves on, and nothing is lost or repeated.
static void any_job(Random& random) {
  const Work work = any_work(random);
  const Rect share{random.next() % 1000, 300, static_cast<uint64_t>(random.below(9)), random.below(2) ? 3u : 64u};
  const uint64_t pairs = share.count * share.versions;
  ww::cuda::GpuJob job(std::make_shared<ww::cuda::Gpu>(0, "any", any_shape(random)), work, share);
  std::vector<ww::JobHit> hits;
  ww::Team team(1);
  while (job.units() < 2 * pairs) {
    ww::YieldFlag yield{0};
    std::thread raiser([&, us = random.below(2000)] {
      std::this_thread::sleep_for(std::chrono::microseconds(us));
      yield.store(1);
    });
    job.run(team, yield);
    raiser.join();
    for (const ww::JobHit& hit : job.take_hits()) hits.push_back(hit);
    uint64_t left = 0;
    const auto pieces = job.left();
    for (const ww::Piece& piece : pieces) left += piece.rect.count * piece.rect.versions;
    CHECK((job.units() + left) % pairs == 0);
  }
  Work then = work;
  uint32_t time;  // little-endian, as the machines are
  std::memcpy(&time, work.header + 68, sizeof time);
  for (uint32_t moved = 0; moved < 2; ++moved) {
    const uint32_t now = time + moved;
    std::memcpy(then.header + 68, &now, sizeof now);
    std::vector<Hit> got, expected = by_cpu(then, share).hits;
    for (const ww::JobHit& hit : hits)
      if (hit.time == now) got.push_back(hit.hit);
    const auto order = [](const Hit& a, const Hit& b) {
      return std::tie(a.version, a.nonce) < std::tie(b.version, b.nonce);
    };
    std::sort(got.begin(), got.end(), order);
    std::sort(expected.begin(), expected.end(), order);
    CHECK(std::equal(got.begin(), got.end(), expected.begin(), expected.end(), same));
  }
}

// An error says what failed; the memory and the threads of a search that failed are given back (ASan sees the rest).
static void a_fault(const char* fault) {
  setenv("FAKE_CUDA_FAULT", fault, 1);
  try {
    ww::cuda::Gpu gpu(0, "any", {32, 1, 4, 32, 64, 1000});
    Random random{7};
    ww::cuda::search(gpu, any_work(random), {0, 5000, 0, 1}, {});
    CHECK(!"it did not fail");
  } catch (const ww::cuda::Error& error) {
    CHECK(std::string(error.what()).find("the GPU") != std::string::npos);
  }
  unsetenv("FAKE_CUDA_FAULT");
}

int main(int argc, char** argv) {
  const int searches = argc > 1 ? std::atoi(argv[1]) : 150;
  Random random{argc > 2 ? std::strtoull(argv[2], nullptr, 10) | 1 : 20261121};
  CHECK(ww::cuda::gpus().size() == 1);
  for (int i = 0; i < searches; ++i) any_search(random);
  for (int i = 0; i < searches / 15 + 1; ++i) any_job(random);
  for (const char* fault : {"cuMemAlloc_v2:2:0", "cuStreamCreateWithPriority:2:0", "cuMemAllocHost_v2:2:0",
                            "cuMemcpyHtoDAsync_v2:2:0", "cuLaunchKernel:2:0", "kernel:700:0"})
    a_fault(fault);  // the last one leaves a broken context
}
