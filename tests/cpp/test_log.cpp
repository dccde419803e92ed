// Recorded random calls: the log replays to the same hash, whole or cut off at any byte; damaged ones, also under a
// checksum that is right, end in words. `test_log [seeds]`
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "random.h"
#include "scheduler/log.h"
#include "scheduler/scheduler.h"

using namespace ww;

namespace {

using Bytes = std::vector<uint8_t>;

const std::string kPath = "test_log." + std::to_string(std::rand()) + ".wwlog";

Bytes recorded(Random& random, int operations, uint64_t* hash) {
  const SchedulerConfig config{3, 6, 8, 100, 2, 20, 30, random.below(2) * 50'000, 1 + random.below(4),
                               random.below(2) != 0};
  Scheduler machine(config);
  machine.record(kPath);
  const std::vector<int32_t> prompt(40, 5);
  std::vector<int32_t> next(3);
  Events events;
  int64_t now_ns = 1'000;
  for (int i = 0; i < operations; ++i, now_ns += random.below(60'000'000)) {
    const int32_t what = random.below(10);
    if (what < 3) {
      RequestParams p{random.below(9), random.below(5) - 1, {0, 1, 1, 0, 0}};
      p.priority = random.below(3) - 1;
      p.tenant = random.next() >> random.below(64);
      p.deadline_ns = random.below(2) * (now_ns + random.below(1'000'000'000));
      p.timeout_ns = random.below(2) * (now_ns + random.below(1'000'000'000));
      machine.submit(now_ns, prompt.data(), random.below(35), p);
    } else if (what == 3) {
      if (random.below(4) == 0) machine.set_draining(random.below(2) != 0);
      else machine.cancel(now_ns, static_cast<uint64_t>(1 + random.below(40)));
    } else if (what == 4) {
      machine.expire(now_ns);
    } else if (!machine.in_flight()) {
      machine.schedule(now_ns);
    } else if (random.below(20) == 0) {
      machine.fail(now_ns, "x");
    } else {
      for (int32_t& token : next) token = random.below(7) - 1;
      machine.complete(now_ns, next.data());
    }
    machine.take_events(events);
  }
  *hash = machine.decision_hash();
  CHECK(machine.stop_recording().empty());
  std::ifstream file(kPath, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

// -2: it was refused.
int64_t replayed(const uint8_t* data, size_t n) {
  const Bytes exact(data, data + n);  // so that a sanitizer sees a read past the end
  try {
    return replay_log(exact.data(), n).cut_at;
  } catch (const std::invalid_argument&) {
    return -2;
  } catch (const std::bad_alloc&) {
    return -2;
  }
}

// The blocks of a log again, after `change` of each payload, with checksums that are right.
template <class F>
Bytes resealed(const Bytes& log, F&& change) {
  Bytes out(log.begin(), log.begin() + 8);
  for (size_t at = 8; at < log.size();) {
    size_t n = 0;
    for (int shift = 0;; shift += 7) {
      n |= size_t{log[at] & 0x7Fu} << shift;
      if (log[at++] < 0x80) break;
    }
    Bytes payload(log.begin() + static_cast<std::ptrdiff_t>(at), log.begin() + static_cast<std::ptrdiff_t>(at + n));
    at += n + 4;
    change(payload);
    for (size_t left = payload.size();; left >>= 7) {
      out.push_back(static_cast<uint8_t>(left >= 0x80 ? left | 0x80 : left));
      if (left < 0x80) break;
    }
    out.insert(out.end(), payload.begin(), payload.end());
    const uint32_t crc = crc32(payload.data(), payload.size());
    for (int i = 0; i < 4; ++i) out.push_back(static_cast<uint8_t>(crc >> 8 * i));
  }
  return out;
}

void one(uint64_t seed) {
  Random random{seed * 0x9E3779B97F4A7C15u | 1};
  uint64_t hash = 0;
  const Bytes log = recorded(random, 400, &hash);
  const LogReplay whole = replay_log(log.data(), log.size());
  CHECK(whole.cut_at == -1 && whole.differs_at == -1 && whole.decision_hash == hash);
  for (size_t n = 0; n < log.size(); ++n) CHECK(replayed(log.data(), n) != -1);
  for (int i = 0; i < 200; ++i) {
    // The config stays: another may ask for more memory than there is.
    bool first = true;
    const Bytes changed = resealed(log, [&](Bytes& payload) {
      if (std::exchange(first, false)) return;
      const auto at = static_cast<size_t>(random.below(static_cast<int32_t>(payload.size())));
      payload[at] = static_cast<uint8_t>(payload[at] ^ (1 + random.below(255)));
    });
    replayed(changed.data(), changed.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int seeds = argc > 1 ? std::atoi(argv[1]) : 6;
  const uint8_t digits[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
  CHECK(crc32(digits, 9) == 0xCBF43926u);
  for (int seed = 1; seed <= seeds; ++seed) one(static_cast<uint64_t>(seed));
  std::remove(kPath.c_str());
  return 0;
}
