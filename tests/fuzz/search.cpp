// ww_work_init and ww_search: error codes, and each answer against the reference, pair by pair.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../cpp/check.h"
#include "input.h"
#include "reference.h"
#include "wattwork/wattwork.h"

namespace {

using Wide = unsigned __int128;
constexpr uint64_t kNonces = uint64_t{1} << 32;
constexpr uint64_t kMostPairs = 40'000;  // what the reference goes through; larger searches are made to end early
constexpr size_t kMostHits = 64;         // room for hits of these

enum class Ending { none, no_word, set_before, set_meanwhile, set_and_cleared };

struct Case {
  ww_work work;
  ww_rect rect;
  std::string isa, environment;
  bool isa_null;
  uint32_t threads;
  Ending ending;
  uint32_t word, after_us;
  size_t hits_room, remaining_room;
};

Wide area(const ww_rect& r) { return Wide{r.count} * r.versions; }

const std::vector<const char*>& isas() {
  static const std::vector<const char*> names = [] {
    size_t n = 0;
    ww_isa_list(nullptr, 0, &n);
    std::vector<const char*> all(n);
    CHECK(ww_isa_list(all.data(), n, &n) == WW_OK);
    return all;
  }();
  return names;
}

bool usable(const std::string& isa) { return std::find(isas().begin(), isas().end(), isa) != isas().end(); }

bool valid(const Case& c) {
  const ww_rect& r = c.rect;
  return Wide{r.first} + r.count <= kNonces &&
         Wide{r.version_first} + r.versions <= reference::version_count(c.work.version_mask);
}

// A length about those where kernels change their ways, or to the end, or any; out of range now and then.
uint64_t length(Input& in, uint64_t left, uint64_t most) {
  switch (in.below(8)) {
    case 0: return in.below(70);
    case 1: return in.pick<uint64_t>({1, 4, 8, 16, 32, 64, 128, 256, 384, 768, 1024, 2048}) - 1 + in.below(3);
    case 2: return std::min<uint64_t>(left, in.below(300));
    case 3: return std::min<uint64_t>(left, in.below(most));
    case 4: return std::min<uint64_t>(left, 1);
    case 5: return in.one_in(4) ? left + in.below(3) : left;
    case 6: return in.below(3);
    default: return in.one_in(8) ? in.u64() : std::min<uint64_t>(left, in.u32());
  }
}

uint64_t start(Input& in, uint64_t end) {
  switch (in.below(8)) {
    case 0: return 0;
    case 1: return in.below(200);
    case 2: return end - std::min<uint64_t>(end, in.below(3000));
    case 3: return end;
    case 4: return in.one_in(4) ? end + in.below(3) : 1;
    case 5: return in.one_in(8) ? in.u64() : 0;
    default: return in.u64() % end;
  }
}

// Checks ww_work_init on the way; then any target at all.
ww_work make_work(Input& in) {
  uint8_t header[80];
  const uint8_t step = in.u8();
  for (size_t i = 0; i < 80; ++i) header[i] = static_cast<uint8_t>(i * step + 1);
  for (size_t i : {0, 1, 2, 3}) header[i] ^= in.u8();
  for (size_t i : {72, 73, 74}) header[i] = in.u8();
  header[75] = in.one_in(4) ? in.u8() : static_cast<uint8_t>(in.below(36));
  const uint32_t mask = in.pick<uint32_t>({0, 0x1fffe000, 0xff, 0x80808083, 0xffffffff, 1, in.u32()});

  ww_work work;
  uint8_t target[32];
  const bool has_target = reference::target_of(header, target);
  CHECK(ww_work_init(&work, header, mask) == (has_target ? WW_OK : WW_E_INVALID));
  CHECK(std::memcmp(work.header, header, 80) == 0 && work.version_mask == mask);
  if (has_target) CHECK(std::memcmp(work.target, target, 32) == 0);
  CHECK(ww_work_init(nullptr, header, mask) == WW_E_INVALID && ww_work_init(&work, nullptr, mask) == WW_E_INVALID);
  if (has_target && in.one_in(4)) return work;

  std::memset(work.target, 0xff, 32);
  work.target[31] = in.pick<uint8_t>({0x00, 0x0f, 0x01, 0xff, in.u8()});
  if (in.one_in(4))
    for (uint8_t& byte : work.target) byte = in.u8();
  return work;
}

Case make_case(Input& in) {
  Case c{};
  c.work = make_work(in);
  c.rect.first = start(in, kNonces);
  c.rect.count = length(in, kNonces - std::min(kNonces, c.rect.first), kMostPairs);
  const uint64_t versions = reference::version_count(c.work.version_mask);
  c.rect.version_first = in.one_in(2) ? start(in, versions) : 0;
  c.rect.versions = in.one_in(2) ? length(in, versions - std::min(versions, c.rect.version_first), 3000) : 1;

  c.isa = in.one_in(12) ? in.pick({"", "nonesuch", "numba", "portable\n"}) : isas()[in.below(isas().size())];
  c.isa_null = in.one_in(6);
  if (in.one_in(6)) c.environment = in.pick({"nonesuch", isas().front(), isas().back()});
  c.threads = in.one_in(24) ? in.pick<uint32_t>({65536, 65537, ~0u}) : static_cast<uint32_t>(in.below(5));
  c.ending = in.pick({Ending::none, Ending::no_word, Ending::none, Ending::no_word, Ending::set_before,
                      Ending::set_meanwhile, Ending::set_and_cleared});
  c.word = std::max(in.u32(), 1u);
  c.after_us = static_cast<uint32_t>(in.below(400));
  c.hits_room = in.one_in(2) ? kMostPairs : in.below(kMostHits);
  c.remaining_room = in.one_in(12) ? in.below(8) : 8 + in.below(3);

  // The target is what one of the pairs has for a hash, or one less.
  if (in.one_in(8) && valid(c) && area(c.rect)) {
    const uint64_t number = c.rect.version_first + in.u32() % c.rect.versions;
    const uint32_t version = reference::version_at(c.work.header, c.work.version_mask, number);
    const auto nonce = static_cast<uint32_t>(c.rect.first + in.u32() % c.rect.count);
    const auto hash = reference::sha256d(c.work.header, version, nonce);
    std::copy(hash.begin(), hash.end(), c.work.target);
    if (in.one_in(2) && c.work.target[0]) --c.work.target[0];
  }
  if (area(c.rect) > kMostPairs && c.ending != Ending::set_before && c.ending != Ending::set_meanwhile) {
    c.ending = Ending::none;
    std::memset(c.work.target, 0xff, 32);
  }
  if (area(c.rect) > kMostPairs) c.hits_room = std::min(c.hits_room, kMostHits);
  return c;
}

// The codes that the header gives for this case; several where it is wrong in several ways.
std::vector<int> wrong(const Case& c) {
  std::vector<int> codes;
  if (!valid(c) || c.threads > 65536) codes.push_back(WW_E_INVALID);
  if (!c.isa_null && !usable(c.isa)) codes.push_back(WW_E_ISA);
  if (c.isa_null && !c.environment.empty() && !usable(c.environment)) codes.push_back(WW_E_ISA);
  const uint64_t threads = c.threads ? c.threads : 1;  // at least, where the library chooses
  if (c.hits_room == 0 || c.remaining_room < threads + 3) codes.push_back(WW_E_CAPACITY);
  return codes;
}

struct Answer {
  int code;
  std::vector<ww_hit> hits;
  std::vector<ww_rect> remaining;
  uint64_t hashes;
  std::string isa;
};

// Room for n between guards.
template <class T> class Guarded {
 public:
  explicit Guarded(size_t n) : n_(n), bytes_((n + 2) * sizeof(T), 0xa5) {}
  T* begin() { return reinterpret_cast<T*>(bytes_.data()) + 1; }
  void check() const {
    const auto intact = [](uint8_t b) { return b == 0xa5; };
    CHECK(std::all_of(bytes_.begin(), bytes_.begin() + sizeof(T), intact));
    CHECK(std::all_of(bytes_.end() - sizeof(T), bytes_.end(), intact));
  }

 private:
  size_t n_;
  std::vector<uint8_t> bytes_;
};

Answer call(const Case& c) {
  Guarded<ww_hit> hits(c.hits_room);
  Guarded<ww_rect> remaining(c.remaining_room);
  ww_result result{};
  ww_stop stop{c.ending == Ending::set_before ? c.word : 0};
  std::optional<std::thread> stopper;
  if (c.ending == Ending::set_meanwhile || c.ending == Ending::set_and_cleared) stopper.emplace([&] {
    std::this_thread::sleep_for(std::chrono::microseconds(c.after_us));
    ww_stop_set(&stop);
    if (c.ending == Ending::set_and_cleared) ww_stop_clear(&stop);
  });
  const int code = ww_search(&c.work, &c.rect, c.isa_null ? nullptr : c.isa.c_str(), c.threads,
                             c.ending == Ending::no_word ? nullptr : &stop, hits.begin(), c.hits_room,
                             remaining.begin(), c.remaining_room, &result);
  if (stopper) stopper->join();
  hits.check();
  remaining.check();
  if (code != WW_OK) return {code, {}, {}, 0, {}};
  CHECK(result.n_hits <= c.hits_room && result.n_remaining <= c.remaining_room && result.isa);
  return {code, {hits.begin(), hits.begin() + result.n_hits},
          {remaining.begin(), remaining.begin() + result.n_remaining}, result.hashes, result.isa};
}

bool within(const ww_rect& inner, const ww_rect& outer) {
  return inner.first >= outer.first && inner.first + inner.count <= outer.first + outer.count &&
         inner.version_first >= outer.version_first &&
         inner.version_first + inner.versions <= outer.version_first + outer.versions;
}

// The whole cut along every edge of what remains: each cell remains once, or was tested. Returns the latter.
std::vector<ww_rect> tested_cells(const ww_rect& whole, const std::vector<ww_rect>& remaining) {
  std::vector<uint64_t> x{whole.first, whole.first + whole.count};
  std::vector<uint64_t> y{whole.version_first, whole.version_first + whole.versions};
  for (const ww_rect& r : remaining) {
    CHECK(r.count > 0 && r.versions > 0 && within(r, whole));
    x.insert(x.end(), {r.first, r.first + r.count});
    y.insert(y.end(), {r.version_first, r.version_first + r.versions});
  }
  std::sort(x.begin(), x.end());
  std::sort(y.begin(), y.end());
  std::vector<ww_rect> tested;
  for (size_t i = 1; i < x.size(); ++i)
    for (size_t j = 1; j < y.size(); ++j) {
      const ww_rect cell{x[i - 1], x[i] - x[i - 1], y[j - 1], y[j] - y[j - 1]};
      if (area(cell) == 0) continue;
      const auto covers =
          std::count_if(remaining.begin(), remaining.end(), [&](const ww_rect& r) { return within(cell, r); });
      CHECK(covers <= 1);
      if (covers == 0) tested.push_back(cell);
    }
  return tested;
}

// Hits are in order, in tested cells, and what the reference makes of them; and none is missing.
void check_hits(const Case& c, const Answer& answer, const std::vector<ww_rect>& tested) {
  const ww_work& w = c.work;
  uint64_t before_number = 0, before_nonce = 0;
  for (size_t i = 0; i < answer.hits.size(); ++i) {
    const ww_hit& hit = answer.hits[i];
    uint64_t number = 0;
    CHECK(reference::number_of(w.header, w.version_mask, hit.version, number));
    CHECK(i == 0 || number > before_number || (number == before_number && hit.nonce > before_nonce));
    before_number = number, before_nonce = hit.nonce;
    CHECK(std::any_of(tested.begin(), tested.end(), [&](const ww_rect& cell) {
      return within({hit.nonce, 1, number, 1}, cell);
    }));
    const auto hash = reference::sha256d(w.header, hit.version, hit.nonce);
    CHECK(std::memcmp(hash.data(), hit.hash, 32) == 0 && reference::at_most(hit.hash, w.target));
  }
  Wide pairs = 0;
  for (const ww_rect& cell : tested) pairs += area(cell);
  CHECK(answer.hashes == static_cast<uint64_t>(pairs));
  if (pairs > kMostPairs) return;
  size_t hits = 0;
  for (const ww_rect& cell : tested)
    for (uint64_t number = cell.version_first; number < cell.version_first + cell.versions; ++number) {
      const uint32_t version = reference::version_at(w.header, w.version_mask, number);
      for (uint64_t nonce = cell.first; nonce < cell.first + cell.count; ++nonce) {
        const auto hash = reference::sha256d(w.header, version, static_cast<uint32_t>(nonce));
        hits += reference::at_most(hash.data(), w.target);
      }
    }
  CHECK(hits == answer.hits.size());
}

bool equal(const Answer& a, const Answer& b) {
  const auto bytes_equal = [](const auto& x, const auto& y) {
    return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof x[0]) == 0);
  };
  return bytes_equal(a.hits, b.hits) && bytes_equal(a.remaining, b.remaining) && a.hashes == b.hashes && a.isa == b.isa;
}

void null_arguments(const Case& c) {
  ww_hit hit;
  ww_rect remaining[8];
  ww_result result;
  const auto search = [&](const ww_work* work, const ww_rect* rect, ww_hit* hits, ww_rect* rest, ww_result* out) {
    return ww_search(work, rect, nullptr, 1, nullptr, hits, 1, rest, 8, out);
  };
  CHECK(search(nullptr, &c.rect, &hit, remaining, &result) == WW_E_INVALID);
  CHECK(search(&c.work, nullptr, &hit, remaining, &result) == WW_E_INVALID);
  CHECK(search(&c.work, &c.rect, nullptr, remaining, &result) == WW_E_INVALID);
  CHECK(search(&c.work, &c.rect, &hit, nullptr, &result) == WW_E_INVALID);
  CHECK(search(&c.work, &c.rect, &hit, remaining, nullptr) == WW_E_INVALID);
}

}  // namespace

void fuzz_search(Input& in) {
  const Case c = make_case(in);
  if (in.one_in(32)) null_arguments(c);
  if (c.environment.empty()) unsetenv("WATTWORK_ISA");
  else setenv("WATTWORK_ISA", c.environment.c_str(), 1);

  const std::vector<int> codes = wrong(c);
  const Answer answer = call(c);
  if (c.threads == 0 && answer.code == WW_E_CAPACITY) return;  // this machine has more CPUs than there was room for
  if (!codes.empty()) {
    CHECK(std::find(codes.begin(), codes.end(), answer.code) != codes.end());
    return;
  }
  CHECK(answer.code == WW_OK && usable(answer.isa));
  if (!c.isa_null) CHECK(answer.isa == c.isa);
  else if (!c.environment.empty()) CHECK(answer.isa == c.environment);

  if (c.threads) CHECK(answer.remaining.size() <= c.threads + 3);
  check_hits(c, answer, tested_cells(c.rect, answer.remaining));
  const bool full = answer.hits.size() == c.hits_room;
  const bool stopped = c.ending == Ending::set_meanwhile || c.ending == Ending::set_and_cleared;
  if (c.ending == Ending::set_before) CHECK(answer.hashes == 0 && answer.hits.empty());
  else if (!stopped) CHECK(full || answer.remaining.empty());
  // Threads that race for the last hits may end at others.
  if (!stopped && (c.threads == 1 || !full)) CHECK(equal(call(c), answer));
}
