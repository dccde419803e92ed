// The state machine under random calls, its invariants checked after each, with pools so small that preemption is the
// rule, and times from nanoseconds to days. `test_scheduler [operations [seed]]`
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <set>
#include <vector>

#include "check.h"
#include "random.h"
#include "scheduler/scheduler.h"

using namespace ww;

namespace {

struct Fuzz {
  explicit Fuzz(uint64_t seed) : random{seed * 0x9E3779B97F4A7C15u | 1}, config(pick()), machine(config) {}

  SchedulerConfig pick() {
    const int32_t seqs = 1 + random.below(6);
    const int32_t overtakes[] = {1, 2, 5, 20, 1 << 30};
    return {seqs, seqs + random.below(12), 1 + random.below(16), 8 + random.below(90), 1 + random.below(4),
            2 + random.below(14), 4 + random.below(24), random.below(3) == 0 ? random.below(20) : 0,
            overtakes[random.below(5)], random.below(2) != 0};
  }

  int64_t span() { return int64_t{1} << random.below(48); }  // up to three days, short ones as often as long ones
  int64_t later() { return random.below(3) == 0 ? now_ns + random.below(1 << 20) + span() / 8 : 0; }

  void submit() {
    std::vector<int32_t> tokens(static_cast<size_t>(random.below(15)), 5);  // most begin alike
    if (!tokens.empty() && random.below(3) == 0) tokens[tokens.size() / 2] = random.below(3);
    ww_sampling sampling{random.below(4) == 0 ? 0.5f : 0.f, 1, 1, 0, 0};
    const auto n = static_cast<int32_t>(tokens.size());
    const RequestParams params{random.below(12),        3,       sampling, random.below(3),
                               random.next() % tenants, later(), later()};
    const int64_t id = machine.submit(now_ns, tokens.data(), n, params);
    if (id < 0) return void(++rejected);
    CHECK(static_cast<uint64_t>(id) == ++submitted);
    live.emplace(static_cast<uint64_t>(id), params);
  }

  void pass_time() {
    now_ns += random.below(8) ? random.below(2000) : span() / 16;
    machine.expire(now_ns);
    take();
    for (const auto& [id, params] : live) CHECK(!params.timeout_ns || params.timeout_ns > now_ns);
    CHECK(machine.next_wakeup_ns() > now_ns || !in_time());
  }
  bool in_time() const { return batch != nullptr || !machine.has_work() || config.max_queue_delay_us == 0; }

  void cancel() {
    const uint64_t id = 1 + random.next() % (submitted + 1);
    CHECK(machine.cancel(now_ns, id) == (live.count(id) == 1));
    take();
    CHECK(live.count(id) == 0);
  }

  void schedule() {
    const bool running = machine.counters().running > 0;
    batch = machine.schedule(now_ns);
    take();
    if (!batch) {  // no idle engine beside a request, but for the delay
      CHECK(!machine.has_work() || (!running && machine.next_wakeup_ns() > now_ns));
      CHECK(!machine.has_work() || machine.next_wakeup_ns() <= now_ns + config.max_queue_delay_us * 1000);
      return;
    }
    CHECK(batch->n_seqs >= 1 && batch->n_seqs <= config.max_num_seqs);
    CHECK(batch->n_tokens >= batch->n_seqs && batch->n_tokens <= config.max_num_batched_tokens);
    CHECK(batch->q_start[0] == 0 && batch->q_start[batch->n_seqs] == batch->n_tokens);
    std::set<int32_t> slots;
    std::map<int32_t, int> holders;  // of each block, in the batch
    for (int32_t b = 0; b < batch->n_seqs; ++b) check_row(b, slots, holders);
    CHECK(static_cast<int32_t>(slots.size()) == batch->n_tokens);
    for (const int32_t slot : slots) CHECK(holders.at(slot / config.block_size) == 1);
    for (const auto& [block, n] : holders) CHECK(n == 1 || config.enable_prefix_sharing);
  }

  void check_row(int32_t b, std::set<int32_t>& slots, std::map<int32_t, int>& holders) {
    const int32_t* row = batch->block_table + int64_t{b} * batch->max_blocks;
    const int32_t n = batch->q_start[b + 1] - batch->q_start[b];
    const int32_t used = (batch->ctx_len[b] + n + config.block_size - 1) / config.block_size;
    for (int32_t i = 0; i < batch->max_blocks; ++i) {
      CHECK(row[i] >= (i < used ? 0 : -1) && row[i] < config.num_blocks);
      if (row[i] >= 0) ++holders[row[i]];
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
    for (const EndEvent& e : events.ends) {
      const int64_t deadline_ns = live.at(e.id).deadline_ns;
      const bool late = deadline_ns && e.finished_ns > deadline_ns;
      CHECK(e.deadline_missed == (late && e.outcome != Outcome::cancelled));
      missed += e.deadline_missed;
      CHECK(live.erase(e.id) == 1);  // each ends exactly once
    }
  }
  bool cancelled(uint64_t id) const {
    return std::any_of(events.ends.begin(), events.ends.end(), [&](const EndEvent& e) { return e.id == id; });
  }

  void operate() {
    ++now_ns;
    const int32_t what = random.below(100);
    if (what < 30) submit();
    else if (what < 38) cancel();
    else if (what < 39) machine.set_draining(random.below(6) == 0);
    else if (what < 44) pass_time();
    else if (batch) finish_step();
    else schedule();
    take();
    machine.check();
  }

  void drain() {
    machine.set_draining(true);
    for (; machine.has_work(); take()) batch ? finish_step() : schedule();
    CHECK(machine.next_wakeup_ns() == kNever);
    machine.check();
    const SchedulerCounters c = machine.counters();
    CHECK(live.empty() && c.kv_blocks_used == 0 && c.deadline_misses == missed);
    CHECK(c.outcomes[static_cast<int>(Outcome::rejected)] == rejected);
  }

  Random random;
  uint64_t tenants = random.below(4) == 0 ? 1000 : 3;
  SchedulerConfig config;
  Scheduler machine;
  const ww_batch* batch = nullptr;
  Events events;
  std::map<uint64_t, RequestParams> live;
  uint64_t submitted = 0;
  int64_t now_ns = 0, rejected = 0, missed = 0;
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

// Hundreds of thousands of requests of as many tenants come and go beside one that waits for ever.
void long_queue() {
  Scheduler machine({2, 8, 1 << 20, 1 << 21, 2, 64, 64, 0, 1 << 30});
  const int32_t prompt[] = {1, 2, 3, 4};
  const ww_sampling greedy{0, 1, 1, 0, 0};
  for (int i = 0; i < 2; ++i) machine.submit(0, prompt, 4, {50, -1, greedy, 9});
  CHECK(machine.schedule(0));
  machine.submit(0, prompt, 4, {4, -1, greedy, -1});
  for (uint64_t i = 0; i < 300000; ++i) {
    const int64_t deadline_ns = i % 3 ? 0 : 1000 + static_cast<int64_t>(i);
    const int64_t id =
        machine.submit(0, prompt, 1, {4, -1, greedy, static_cast<int32_t>(i % 5), i, deadline_ns, 1000});
    if (i % 2) CHECK(machine.cancel(0, static_cast<uint64_t>(id)));
  }
  machine.check();
  machine.expire(999);
  CHECK(machine.counters().waiting == 150001);
  machine.expire(1000);  // in order of arrival, as the next ones are cancelled
  const uint64_t from = 300004;
  for (uint64_t i = 0; i < 300000; ++i)
    CHECK(machine.submit(0, prompt, 1, {4, -1, greedy}) == static_cast<int64_t>(from + i));
  for (uint64_t i = 0; i < 300000; ++i) CHECK(machine.cancel(0, from + i));
  CHECK(machine.counters().waiting == 1 && machine.counters().tenants == 2);
  for (uint64_t i = 0; i < 10000; ++i) {  // the priority of the one that waits
    const int64_t id = machine.submit(0, prompt, 1, {4, -1, greedy, -1, i});
    CHECK(machine.cancel(0, static_cast<uint64_t>(id)) && machine.counters().tenants < 40);
  }
  machine.check();
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
  if (argc > 1) std::cout << operations << " operations, seed " << seed << std::endl;
  int64_t preemptions = 0, missed = 0, timed_out = 0, shared = 0;
  for (int64_t done = 0, round = 0; done < operations; done += 1000, ++round) {
    Fuzz fuzz(seed + static_cast<uint64_t>(round)), again(seed + static_cast<uint64_t>(round));
    for (int i = 0; i < 1000; ++i) fuzz.operate();
    fuzz.drain();
    if (round % 8 == 0) {  // the same calls make the same decisions
      for (int i = 0; i < 1000; ++i) again.operate();
      again.drain();
      CHECK(again.machine.decision_hash() == fuzz.machine.decision_hash());
    }
    const SchedulerCounters c = fuzz.machine.counters();
    preemptions += c.preemptions;
    missed += c.deadline_misses;
    timed_out += c.outcomes[static_cast<int>(Outcome::timed_out)];
    CHECK(c.prefix_shared_tokens == 0 || fuzz.config.enable_prefix_sharing);
    shared += c.prefix_shared_tokens;
  }
  CHECK(std::min({preemptions, missed, timed_out}) > operations / 1000 && shared > operations / 50);
  long_queue();
  preemption_keeps_the_place();
  misuse_is_refused();
  return 0;
}
