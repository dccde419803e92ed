// The state machine under random calls, its invariants checked after each, with pools so small that preemption is the
// rule. `test_scheduler [operations [seed]]`
#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include "check.h"
#include "scheduler/scheduler.h"

using namespace ww;

namespace {

struct Random {
  uint64_t state;
  uint64_t next() {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
  }
  int32_t below(int32_t n) { return static_cast<int32_t>(next() % static_cast<uint64_t>(n)); }
};

struct Fuzz {
  explicit Fuzz(uint64_t seed) : random{seed * 0x9E3779B97F4A7C15u | 1}, config(pick()), machine(config) {}

  SchedulerConfig pick() {
    const int32_t seqs = 1 + random.below(6);
    return {seqs, seqs + random.below(12), 1 + random.below(8), 8 + random.below(60), 1 + random.below(4),
            2 + random.below(14), 4 + random.below(24)};
  }

  void submit() {
    std::vector<int32_t> tokens(static_cast<size_t>(random.below(15)), 5);
    ww_sampling sampling{random.below(4) == 0 ? 0.5f : 0.f, 1, 1, 0, 0};
    const auto n = static_cast<int32_t>(tokens.size());
    const int64_t id = machine.submit(now_ns, tokens.data(), n, {random.below(12), 3, sampling});
    if (id < 0) return void(++rejected);
    CHECK(static_cast<uint64_t>(id) == ++submitted);
    live.insert(static_cast<uint64_t>(id));
  }

  void cancel() {
    const uint64_t id = 1 + random.next() % (submitted + 1);
    CHECK(machine.cancel(now_ns, id) == (live.count(id) == 1));
    take();
    CHECK(live.count(id) == 0);
  }

  void schedule() {
    const bool work = machine.has_work();
    batch = machine.schedule(now_ns);
    CHECK((batch != nullptr) == work);  // no idle engine beside a request
    if (!batch) return;
    CHECK(batch->n_seqs >= 1 && batch->n_seqs <= config.max_num_seqs);
    CHECK(batch->n_tokens >= batch->n_seqs && batch->n_tokens <= config.max_num_batched_tokens);
    CHECK(batch->q_start[0] == 0 && batch->q_start[batch->n_seqs] == batch->n_tokens);
    std::set<int32_t> slots, blocks;
    for (int32_t b = 0; b < batch->n_seqs; ++b) check_row(b, slots, blocks);
    CHECK(static_cast<int32_t>(slots.size()) == batch->n_tokens);
  }

  void check_row(int32_t b, std::set<int32_t>& slots, std::set<int32_t>& blocks) {
    const int32_t* row = batch->block_table + int64_t{b} * batch->max_blocks;
    const int32_t n = batch->q_start[b + 1] - batch->q_start[b];
    const int32_t used = (batch->ctx_len[b] + n + config.block_size - 1) / config.block_size;
    for (int32_t i = 0; i < batch->max_blocks; ++i) {
      CHECK(row[i] >= (i < used ? 0 : -1) && row[i] < config.num_blocks);
      if (row[i] >= 0) CHECK(blocks.insert(row[i]).second);
      else CHECK(i >= used);
    }
    for (int32_t i = 0; i < n; ++i) {
      const int32_t position = batch->ctx_len[b] + i, slot = batch->slot_map[batch->q_start[b] + i];
      CHECK(slot == row[position / config.block_size] * config.block_size + position % config.block_size);
      slots.insert(slot);
    }
  }

  void finish_step() {
    if (random.below(20) == 0) {
      machine.fail(now_ns, "broken");
    } else {
      std::vector<int32_t> next(static_cast<size_t>(batch->n_seqs));
      for (size_t b = 0; b < next.size(); ++b) next[b] = batch->want_logits[b] ? random.below(30) : -1;
      machine.complete(now_ns, next.data());
    }
    batch = nullptr;
  }

  void take() {
    machine.take_events(events);
    for (const TokenEvent& e : events.tokens) CHECK(live.count(e.id) == 1 || cancelled(e.id));
    for (const EndEvent& e : events.ends) CHECK(live.erase(e.id) == 1);  // each ends exactly once
  }
  bool cancelled(uint64_t id) const {
    return std::any_of(events.ends.begin(), events.ends.end(), [&](const EndEvent& e) { return e.id == id; });
  }

  void operate() {
    ++now_ns;
    const int32_t what = random.below(100);
    if (what < 30) submit();
    else if (what < 38) cancel();
    else if (what < 39) machine.set_draining(random.below(2));
    else if (batch) finish_step();
    else schedule();
    take();
    machine.check();
  }

  void drain() {
    machine.set_draining(true);
    for (; machine.has_work(); take()) batch ? finish_step() : schedule();
    machine.check();
    const SchedulerCounters c = machine.counters();
    CHECK(live.empty() && c.kv_blocks_used == 0 && c.outcomes[static_cast<int>(Outcome::rejected)] == rejected);
  }

  Random random;
  SchedulerConfig config;
  Scheduler machine;
  const ww_batch* batch = nullptr;
  Events events;
  std::set<uint64_t> live;
  uint64_t submitted = 0;
  int64_t now_ns = 0, rejected = 0;
};

// A preempted request is in its old place again, and its output goes on where it was.
void preemption_keeps_the_place() {
  Scheduler machine({2, 8, 8, 100, 2, 4, 8});
  const int32_t prompt[] = {1, 2, 3, 4};
  const ww_sampling greedy{0, 1, 1, 0, 0};
  for (int i = 0; i < 3; ++i) CHECK(machine.submit(0, prompt, 4, {4, -1, greedy}) == i + 1);
  std::vector<uint64_t> finished;
  Events events;
  while (const ww_batch* batch = machine.schedule(0)) {
    const std::vector<int32_t> next(static_cast<size_t>(batch->n_seqs), 9);
    machine.complete(0, next.data());
    machine.take_events(events);
    for (const EndEvent& e : events.ends) finished.push_back(e.id);
  }
  CHECK((finished == std::vector<uint64_t>{1, 2, 3}));
  CHECK(machine.counters().preemptions > 0 && machine.counters().output_tokens == 12);
  CHECK(machine.counters().prompt_tokens == 12);
}

void misuse_is_refused() {
  const auto throws = [](auto&& f) {
    try {
      f();
    } catch (const std::exception&) {
      return true;
    }
    return false;
  };
  CHECK(throws([] { Scheduler({4, 3, 1, 1, 1, 1, 1}); }));
  CHECK(throws([] { Scheduler({1, 1, 1, 1, 0, 1, 1}); }));
  CHECK(throws([] { Scheduler({1, 1, 1, 1, 1 << 16, 1 << 15, 1}); }));  // slots are int32
  Scheduler machine({1, 4, 1, 4, 4, 4, 8});
  const int32_t token = 1;
  CHECK(throws([&] { machine.complete(0, &token); }));
  CHECK(machine.submit(0, &token, 1, {1, -1, {}}) == 1 && machine.schedule(0));
  CHECK(throws([&] { machine.schedule(0); }));
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t operations = argc > 1 ? std::atoll(argv[1]) : 500000;
  const uint64_t seed = argc > 2 ? static_cast<uint64_t>(std::atoll(argv[2])) : 1;
  int64_t preemptions = 0;
  for (int64_t done = 0, round = 0; done < operations; done += 1000, ++round) {
    Fuzz fuzz(seed + static_cast<uint64_t>(round)), again(seed + static_cast<uint64_t>(round));
    for (int i = 0; i < 1000; ++i) fuzz.operate();
    fuzz.drain();
    if (round % 8 == 0) {  // the same calls make the same decisions
      for (int i = 0; i < 1000; ++i) again.operate();
      again.drain();
      CHECK(again.machine.decision_hash() == fuzz.machine.decision_hash());
    }
    preemptions += fuzz.machine.counters().preemptions;
  }
  CHECK(preemptions > operations / 1000);
  preemption_keeps_the_place();
  misuse_is_refused();
  return 0;
}
