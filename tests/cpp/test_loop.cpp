// The loop with an engine and a back that count: every request ends once, no unit of the back is lost or repeated
// across yields, modes and shares of time, commands from many threads, close in every state, fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/loop.h"

using namespace ww;

namespace {

constexpr SchedulerConfig kConfig{8, 32, 100000, 1 << 20, 4, 24, 64};
constexpr ww_sampling kGreedy{0, 1, 1, 0, 0};

// How many workers are awake, of backs and engines together, and how many ever were at once.
std::atomic<int> awake{0}, most_awake{0};
struct Awake {
  Awake() {
    const int n = ++awake;
    for (int most = most_awake; most < n && !most_awake.compare_exchange_weak(most, n);) {
    }
  }
  ~Awake() { --awake; }
};

// Answers context + 1; uses the pool, as an engine does. A batch with the token 666 fails.
struct CountingEngine {
  std::atomic<int64_t> tokens{0};
  static int step(void* self, const ww_batch* batch, ww_out* out) {
    auto& engine = *static_cast<CountingEngine*>(self);
    Team team;
    std::atomic<int> bad{0};
    team.run(batch->n_seqs, [&](int b) {
      const Awake one;
      for (int32_t t = batch->q_start[b]; t < batch->q_start[b + 1]; ++t) bad += batch->tokens[t] == 666;
      if (batch->want_logits[b]) out->next_token[b] = batch->ctx_len[b] + batch->q_start[b + 1] - batch->q_start[b];
    });
    engine.tokens += batch->n_tokens;
    return bad ? WW_E_FAILED : WW_OK;
  }
  static int sync(void*) { return WW_OK; }
  LoopEngine face() { return {{this, &step, &sync}, nullptr, {}}; }
};

// Takes numbered units, as many workers as it gets, and marks each done. Plain marks: a race or a repeat shows.
struct CountingBack : Back {
  static constexpr uint64_t kUnits = 1 << 22;
  std::vector<uint8_t> marks = std::vector<uint8_t>(kUnits);
  std::atomic<uint64_t> next{0}, done{0};
  std::atomic<int> inside{0}, most_inside{1};
  bool alone = false;

  void run(Team& team, const YieldFlag& yield) override {
    CHECK(inside.fetch_add(1) < most_inside);
    team.run(8, [&](int) {
      const Awake one;
      while (yield.load(std::memory_order_relaxed) == 0) {
        const uint64_t unit = next.fetch_add(1);
        if (unit < kUnits) ++marks[unit];
        done.fetch_add(1);
        for (int i = 0; i < 200; ++i) asm volatile("");
      }
    });
    inside.fetch_sub(1);
  }
  uint64_t units() const override { return done.load(); }
  bool one_caller() const override { return alone; }
  void verify() const {
    CHECK(inside == 0 && next == done && done > 0);
    for (uint64_t i = 0; i < kUnits; ++i) CHECK(marks[i] == (i < next ? 1 : 0));
  }
};

int64_t submit(Loop& loop, int32_t n, int32_t max_tokens, int32_t token = 1) {
  const std::vector<int32_t> tokens(static_cast<size_t>(n), token);
  return loop.submit(tokens.data(), n, {max_tokens, -1, kGreedy});
}

struct Consumer {
  explicit Consumer(Loop& loop)
      : thread([this, &loop] {
          Events events;
          while (loop.wait_events(60000)) {
            loop.take_events(events);
            for (const auto& e : events.tokens) ++n_tokens[e.id];
            for (const auto& e : events.ends) {
              CHECK(ends.emplace(e.id, e.outcome).second);  // each ends exactly once
              CHECK(e.n_output == n_tokens[e.id] && e.submitted_ns <= e.finished_ns);
              CHECK((e.first_token_ns >= 0) == (e.n_output > 0));
              if (e.outcome == Outcome::failed) CHECK(e.message == ww_strerror(WW_E_FAILED));
              count += 1;
            }
          }
        }) {}
  std::map<uint64_t, Outcome> ends;
  std::map<uint64_t, int> n_tokens;
  std::atomic<int> count{0};
  std::thread thread;
};

void wait_until(const std::function<bool()>& ready) {
  while (!ready()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// Clients, cancels and swaps of the back, all at once.
void storm() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto a = std::make_shared<CountingBack>(), b = std::make_shared<CountingBack>();
  std::atomic<int64_t> submitted{0};
  {
    Loop loop(kConfig, &face, 3);
    Consumer consumer(loop);
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 300; ++i) {
          const int64_t id = submit(loop, 1 + (i * 7 + t) % 30, 1 + i % 20, i % 50 == 49 ? 666 : 1);
          CHECK(id > 0);
          ++submitted;
          if (i % 5 == 0) loop.cancel(static_cast<uint64_t>(id));
          if (i % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
        }
      });
    threads.emplace_back([&] {
      for (int i = 0; i < 60; ++i) {
        auto& old = i % 2 ? a : b;
        loop.set_back(i % 2 ? b : a);
        CHECK(old->inside == 0);  // the old back has left its quantum
        const uint64_t before = old->units();
        std::this_thread::sleep_for(std::chrono::microseconds(500));
        CHECK(old->units() == before);
        loop.stats();
      }
    });
    for (auto& thread : threads) thread.join();
    wait_until([&] { return loop.wait_idle(1000); });
    wait_until([&] { return consumer.count == submitted; });
    const LoopStats stats = loop.stats();
    int64_t ended = 0;
    for (const int64_t n : stats.scheduler.outcomes) ended += n;
    CHECK(ended == submitted && stats.scheduler.kv_blocks_used == 0);
    CHECK(stats.scheduler.outcomes[static_cast<int>(Outcome::failed)] > 0);
    for (const auto& back : {a, b}) {  // where the front was busy all along, it had no turn yet
      loop.set_back(back);
      wait_until([&] { return back->units() > 0; });
    }
    loop.set_back(nullptr);
    loop.close();
    consumer.thread.join();
  }
  a->verify();
  b->verify();
}

// Single requests while the back works: each makes it yield.
void yields() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto back = std::make_shared<CountingBack>();
  Loop loop(kConfig, &face, 2);
  Consumer consumer(loop);
  loop.set_back(back);
  for (int i = 0; i < 50; ++i) {
    const uint64_t before = back->units();
    wait_until([&] { return back->units() > before; });
    CHECK(submit(loop, 3, 2) == i + 1);
    wait_until([&] { return consumer.count == i + 1; });
  }
  const LoopStats stats = loop.stats();
  CHECK(stats.yields >= 50 && stats.yields < 120 && !stats.yield_times_ns.empty() && stats.back_busy_ns > 0);
  for (const int64_t ns : stats.yield_times_ns) CHECK(ns >= 0);
  loop.close();
  consumer.thread.join();
  back->verify();
}

// Some wait eagerly, one sleeps: each end is told to one of them, and the back goes on once nobody spins.
void eager_waits() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto back = std::make_shared<CountingBack>();
  Loop loop(kConfig, &face, 2);
  Consumer sleeper(loop);
  loop.set_back(back);
  std::atomic<int> told{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t)
    callers.emplace_back([&] {
      Events events;
      for (int i = 0; i < 300; ++i) {
        CHECK(submit(loop, 3, 1) > 0);
        CHECK(loop.wait_events(0, true));
        loop.take_events(events);
        told += static_cast<int>(events.ends.size());
        if (i % 50 == 0) {
          const uint64_t before = back->units();
          wait_until([&] { return back->units() > before; });
        }
      }
    });
  for (auto& caller : callers) caller.join();
  wait_until([&] { return loop.wait_idle(1000) && told + sleeper.count == 900; });
  for (int i = 0; i < 100; ++i) {  // who leaves the events lets the other have them
    const int before = sleeper.count;
    CHECK(submit(loop, 3, 1) > 0 && loop.wait_events(0, true));
    loop.leave_events();
    wait_until([&] { return sleeper.count > before; });
  }
  loop.close();
  CHECK(!loop.wait_events(60000, true));
  sleeper.thread.join();
  CHECK(told + sleeper.count == 1000);
  back->verify();
}

// An engine that works until it is let go.
struct BlockedEngine {
  std::atomic<int> inside{0}, let_go{0};
  static int step(void* self, const ww_batch* batch, ww_out* out) {
    auto& engine = *static_cast<BlockedEngine*>(self);
    Team team;
    engine.team = team.size();
    engine.inside = 1;
    wait_until([&] { return engine.let_go != 0; });
    for (int b = 0; b < batch->n_seqs; ++b) out->next_token[b] = 1;
    return WW_OK;
  }
  std::atomic<int> team{0};
  static int sync(void*) { return WW_OK; }
  LoopEngine face() { return {{this, &step, &sync}, nullptr, {}}; }
};

// Queued and in flight alike, while the engine works and nobody submits.
void timeouts_beside_a_blocked_engine() {
  BlockedEngine engine;
  const LoopEngine face = engine.face();
  Loop loop(kConfig, &face, 1);
  Consumer consumer(loop);
  const int32_t token = 1;
  const int64_t start_ns = now_ns();
  CHECK(loop.submit(&token, 1, {2, -1, kGreedy, 0, 0, 0, start_ns + 30'000'000}) == 1);
  wait_until([&] { return engine.inside != 0; });
  for (int i = 0; i < 10000; ++i) submit(loop, 1, 1);
  const auto last = static_cast<uint64_t>(loop.submit(&token, 1, {2, -1, kGreedy, 0, 0, 0, start_ns + 20'000'000}));
  wait_until([&] { return consumer.count == 2; });
  CHECK(now_ns() >= start_ns + 30'000'000 && loop.stats().scheduler.kv_blocks_used > 0);
  engine.let_go = 1;
  wait_until([&] { return loop.wait_idle(1000) && consumer.count == 10002; });
  loop.close();
  consumer.thread.join();
  CHECK(consumer.ends.at(1) == Outcome::timed_out && consumer.ends.at(last) == Outcome::timed_out);
  CHECK(consumer.n_tokens[1] == 0 && consumer.n_tokens[last] == 0);
}

// A batch waits for more: until it is full, its delay is over, all of it timed out, or the loop drains or closes.
void delays() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  SchedulerConfig config = kConfig;
  config.max_queue_delay_us = 3'600'000'000;  // never over
  const int32_t token = 1;
  {
    Loop loop(config, &face, 1);
    Consumer consumer(loop);
    loop.submit(&token, 1, {2, -1, kGreedy, 0, 0, 0, now_ns() + 5'000'000});
    wait_until([&] { return consumer.count == 1; });
    for (int i = 0; i < config.max_num_seqs; ++i) CHECK(engine.tokens == 0 && submit(loop, 1, 1) == i + 2);
    wait_until([&] { return consumer.count == config.max_num_seqs + 1; });
    submit(loop, 1, 1);
    loop.set_draining(true);
    wait_until([&] { return loop.wait_idle(1000); });
    loop.set_draining(false);
    submit(loop, 1, 1);
    loop.close();
    consumer.thread.join();
    CHECK(consumer.ends.at(1) == Outcome::timed_out && consumer.count == config.max_num_seqs + 3);
  }
  config.max_queue_delay_us = 2000;
  Loop loop(config, &face, 1);
  loop.set_back(std::make_shared<CountingBack>());
  for (int i = 0; i < 20; ++i) {
    submit(loop, 1, 1);
    wait_until([&] { return loop.wait_idle(1000); });
  }
  const LoopStats stats = loop.stats();
  CHECK(stats.scheduler.releases[static_cast<int>(Release::delay)] == 20);
}

// While a batch waits, the back works; it leaves in time, with nobody in wait_events. A batch held for ever lets it work
// until the loop drains.
void hashing_in_a_delay() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  SchedulerConfig config = kConfig;
  config.max_queue_delay_us = 200'000;
  for (const double share : {1.0, 0.5}) {
    auto back = std::make_shared<CountingBack>();
    {
      Loop loop(config, &face, 2);
      loop.throttle(share, 1);
      submit(loop, 1, 1);  // the loop stands in its delay before there is a back
      loop.set_back(back);
      wait_until([&] { return loop.wait_idle(1000); });
      CHECK(loop.stats().scheduler.releases[static_cast<int>(Release::delay)] == 1);
    }
    back->verify();
  }
  config.max_queue_delay_us = 3'600'000'000;
  auto back = std::make_shared<CountingBack>();
  {
    Loop loop(config, &face, 2);
    submit(loop, 1, 1);
    loop.set_back(back);
    for (const int more : {0, 1}) {  // also after one more has come
      if (more) submit(loop, 1, 1);
      const uint64_t before = back->units();
      wait_until([&] { return back->units() > before; });
      CHECK(engine.tokens == 2);
    }
    loop.set_back_mode(BackMode::off);
    const uint64_t still = back->units();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(back->units() == still);
    loop.set_back_mode(BackMode::gap);
    wait_until([&] { return back->units() > still; });
    loop.set_draining(true);
    wait_until([&] { return loop.wait_idle(1000); });
    CHECK(engine.tokens == 4);
  }
  back->verify();
}

// Beside a step that does not end: corun works and gives up its workers at once, whatever is asked of it.
void corun_beside_a_blocked_engine() {
  BlockedEngine engine;
  const LoopEngine face = engine.face();
  auto a = std::make_shared<CountingBack>(), b = std::make_shared<CountingBack>();
  a->most_inside = b->most_inside = 2;
  const auto moves = [](CountingBack& back) {
    const uint64_t before = back.units();
    wait_until([&] { return back.units() > before; });
  };
  const auto stands = [](CountingBack& back) {
    const uint64_t before = back.units();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(back.units() == before && back.inside == 0);
  };
  {
    Loop loop(kConfig, &face, 5, {}, BackMode::corun, 2);
    loop.set_back(a);
    moves(*a);
    CHECK(submit(loop, 1, 1) == 1);
    wait_until([&] { return engine.inside != 0; });
    CHECK(engine.team == 3);
    moves(*a);
    CHECK(a->inside == 1 && loop.stats().back_mode == BackMode::corun);
    loop.set_back(b);
    stands(*a);
    moves(*b);
    loop.throttle(0, 1);
    wait_until([&] { return b->inside == 0; });
    stands(*b);
    loop.throttle(0.25, 1);
    moves(*b);
    loop.set_back_mode(BackMode::gap);
    stands(*b);
    loop.set_back_mode(BackMode::corun);
    moves(*b);
    loop.set_back(nullptr);
    stands(*b);
    engine.let_go = 1;
    wait_until([&] { return loop.wait_idle(1000); });
    engine.inside = 0;
    CHECK(submit(loop, 1, 1) == 2);  // without a back the engine has all five
    wait_until([&] { return loop.wait_idle(1000); });
    CHECK(engine.team == 5);
    loop.set_back_mode(BackMode::off);
    loop.set_back(a);
    engine.inside = engine.let_go = 0;
    CHECK(submit(loop, 1, 1) == 3);
    wait_until([&] { return engine.inside != 0; });
    CHECK(engine.team == 5);
    CHECK(submit(loop, 1, 1) == 4);
    loop.set_back_mode(BackMode::corun);  // from the next step on
    stands(*a);
    engine.let_go = 1;
    wait_until([&] { return loop.wait_idle(1000); });
    CHECK(engine.team == 3);
    moves(*a);
  }
  a->verify();
  b->verify();
}

// A back with use for one caller, in corun: it goes on beside requests, and never gives way to one.
void corun_alone() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto back = std::make_shared<CountingBack>();
  back->alone = true;
  {
    Loop loop(kConfig, &face, 2, {}, BackMode::corun, 1);
    loop.set_back(back);
    for (int i = 0; i < 100; ++i) {
      CHECK(submit(loop, 3, 3) > 0);
      const uint64_t before = back->units();
      wait_until([&] { return loop.wait_idle(1000) && back->units() > before; });
    }
    CHECK(loop.stats().yields == 0 && loop.stats().back_runs == 1);
    loop.set_back_mode(BackMode::gap);
    wait_until([&] { return loop.stats().back_runs == 2; });
    CHECK(submit(loop, 3, 3) > 0);
    wait_until([&] { return loop.stats().yields > 0; });
  }
  back->verify();
}

// Requests, backs, modes and shares change hands at once: no unit is lost or repeated, and never are more workers awake
// than threads. A back with use for one caller has no more than one.
void storm_of_modes(bool alone) {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto a = std::make_shared<CountingBack>(), b = std::make_shared<CountingBack>();
  a->most_inside = b->most_inside = alone ? 1 : 2;
  a->alone = b->alone = alone;
  most_awake = 0;
  {
    Loop loop(kConfig, &face, 4, {}, BackMode::corun, 2);
    Consumer consumer(loop);
    std::vector<std::thread> threads;
    threads.emplace_back([&] {
      for (int i = 0; i < 300; ++i) {
        CHECK(submit(loop, 1 + i % 30, 1 + i % 20) > 0);
        if (i % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(500));
      }
    });
    threads.emplace_back([&] {
      for (int i = 0; i < 60; ++i) {
        auto& old = i % 2 ? a : b;
        loop.set_back(i % 2 ? b : a);
        CHECK(old->inside == 0);
        std::this_thread::sleep_for(std::chrono::microseconds(700));
      }
    });
    threads.emplace_back([&] {
      constexpr BackMode kModes[] = {BackMode::gap, BackMode::corun, BackMode::off, BackMode::corun};
      for (int i = 0; i < 60; ++i) {
        loop.set_back_mode(kModes[i % 4]);
        std::this_thread::sleep_for(std::chrono::microseconds(900));
      }
    });
    threads.emplace_back([&] {
      for (int i = 0; i < 60; ++i) {
        loop.throttle(i % 5 * 0.25, i % 3 ? 1 : 0.5);
        std::this_thread::sleep_for(std::chrono::microseconds(600));
      }
      loop.throttle(1, 1);
    });
    for (auto& thread : threads) thread.join();
    wait_until([&] { return loop.wait_idle(1000); });
    wait_until([&] { return consumer.count == 300; });
    for (const auto& back : {a, b})
      for (const auto mode : {BackMode::gap, BackMode::corun}) {
        loop.set_back(back);
        loop.set_back_mode(mode);
        const uint64_t before = back->units();
        wait_until([&] { return back->units() > before; });
      }
    const LoopStats stats = loop.stats();
    CHECK(stats.back_busy_ns > 0 && stats.back_share == 1 && stats.front_share == 1);
    loop.close();
    consumer.thread.join();
  }
  a->verify();
  b->verify();
  CHECK(most_awake <= 4);
}

// A slowed engine decides the same; its rest ends with the loop, or with the throttle.
void slow_front() {
  BlockedEngine engine;
  engine.let_go = 1;
  const LoopEngine face = engine.face();
  int64_t steps[2];
  for (const int slow : {0, 1}) {
    Loop loop(kConfig, &face, 1);
    if (slow) loop.throttle(1, 0.5);
    for (int i = 0; i < 5; ++i) {  // one at a time: each step's batch is known
      CHECK(submit(loop, 3, 2) == i + 1);
      wait_until([&] { return loop.wait_idle(1000); });
    }
    steps[slow] = loop.stats().scheduler.steps;
  }
  CHECK(steps[0] == steps[1]);
  Loop loop(kConfig, &face, 1);
  loop.throttle(1, 1e-300);  // a rest of an hour
  CHECK(submit(loop, 1, 2) == 1);
  wait_until([&] { return loop.stats().scheduler.steps == 1; });
  loop.throttle(1, 1);
  wait_until([&] { return loop.wait_idle(1000); });
  loop.throttle(1, 1e-300);
  CHECK(submit(loop, 1, 2) == 2);
  wait_until([&] { return loop.stats().scheduler.steps == 3; });
  loop.close();
}

void wrong_modes_and_shares() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  const auto refused = [](const std::function<void()>& what) {
    try {
      what();
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  };
  Loop loop(kConfig, &face, 1);
  CHECK(refused([&] { loop.set_back_mode(BackMode::corun); }) && loop.stats().back_mode == BackMode::gap);
  CHECK(refused([&] { Loop(kConfig, &face, 2, {}, BackMode::corun, 2); }));
  CHECK(refused([&] { Loop(kConfig, &face, 2, {}, BackMode::corun, 0); }));
  for (const double share : {-0.1, 1.1, double{NAN}}) {
    CHECK(refused([&] { loop.throttle(share, 1); }));
    CHECK(refused([&] { loop.throttle(1, share); }));
  }
  CHECK(refused([&] { loop.throttle(1, 0); }));
}

// It throws on the thread beside the loop, or on both: it is dropped, once, and told.
void a_back_that_throws_beside() {
  struct Broken : Back {
    void run(Team&, const YieldFlag&) override { throw std::runtime_error("no more units"); }
    uint64_t units() const override { return 0; }
  };
  CountingEngine engine;
  const LoopEngine face = engine.face();
  for (int i = 0; i < 20; ++i) {
    Loop loop(kConfig, &face, 2, {}, BackMode::corun, 1);
    loop.set_back(std::make_shared<Broken>());
    wait_until([&] { return !loop.stats().back_error.empty(); });
    CHECK(loop.take_back_error() == "no more units");
    CHECK(submit(loop, 1, 1) == 1);
    wait_until([&] { return loop.wait_idle(1000); });
    auto back = std::make_shared<CountingBack>();
    back->most_inside = 2;
    loop.set_back(back);
    wait_until([&] { return back->units() > 0; });
  }
}

void draining() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  Loop loop(kConfig, &face, 1);
  loop.set_draining(true);
  CHECK(submit(loop, 1, 1) == kRejectDraining);
  loop.set_draining(false);
  CHECK(submit(loop, 1, 1) == 1 && submit(loop, 60, 60) == kRejectTooLarge);
  wait_until([&] { return loop.wait_idle(1000); });
}

// Close in every state: never started, hashing, stepping, with events that nobody takes; twice, and from two threads.
void closing() {
  CountingEngine engine;
  const LoopEngine face = engine.face();
  { Loop unused(kConfig, &face, 2); }
  {
    Loop hash_only(kConfig, nullptr, 2);
    CHECK(submit(hash_only, 1, 1) == kRejectNoEngine);
    hash_only.set_back(std::make_shared<CountingBack>());
  }
  for (int i = 0; i < 30; ++i) {
    Loop loop(kConfig, &face, 2);
    auto back = std::make_shared<CountingBack>();
    back->most_inside = 2;
    loop.set_back(back);
    if (i % 3 == 1) loop.set_back_mode(BackMode::corun);
    if (i % 3 == 2) loop.throttle(0.3, 0.9);
    for (int j = 0; j < i; ++j) CHECK(submit(loop, 5, 50) > 0);
    std::thread other([&] { loop.close(); });
    loop.close();
    other.join();
    CHECK(submit(loop, 1, 1) == kRejectClosed);
    loop.set_back(nullptr);
    CHECK(loop.wait_idle(60000));
    Events events;
    size_t ends = 0;
    while (loop.wait_events(60000)) {
      loop.take_events(events);
      ends += events.ends.size();
    }
    CHECK(ends == static_cast<size_t>(i));
  }
}

void forked_child_is_closed() {
  if (!can_fork()) return;
  CountingEngine engine;
  const LoopEngine face = engine.face();
  auto loop = std::make_unique<Loop>(kConfig, &face, 2, std::string{}, BackMode::corun, 1);
  auto back = std::make_shared<CountingBack>();
  back->most_inside = 2;
  loop->set_back(back);
  loop->throttle(0.5, 1);
  wait_until([&] { return back->units() > 0; });
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    Events events;
    CHECK(submit(*loop, 1, 1) == kRejectClosed && !loop->cancel(1) && !loop->wait_events(1000));
    loop->set_back(nullptr);
    loop->set_back_mode(BackMode::gap);
    loop->throttle(1, 1);
    loop->stats();
    loop->close();
    loop.reset();
    Loop fresh(kConfig, &face, 2);
    CHECK(submit(fresh, 3, 3) == 1);
    wait_until([&] { return fresh.wait_idle(1000); });
    fresh.close();
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

int main() {
  storm();
  yields();
  eager_waits();
  timeouts_beside_a_blocked_engine();
  delays();
  hashing_in_a_delay();
  corun_beside_a_blocked_engine();
  corun_alone();
  storm_of_modes(false);
  storm_of_modes(true);
  slow_front();
  wrong_modes_and_shares();
  a_back_that_throws_beside();
  draining();
  closing();
  forked_child_is_closed();
  return 0;
}
