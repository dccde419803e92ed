// What the loop consists of: loop.cpp is its face, loop_thread.cpp the thread that steps the engine, hashing.cpp the back.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/loop.h"

namespace ww {

constexpr size_t kYieldsKept = 1024;
constexpr int64_t kMostRestNs = 3'600'000'000'000;

// One thread's part in hashing, and what is known of it under the loop's mutex.
struct Shift {
  alignas(64) YieldFlag yield{1};        // 0 only while the back may run
  std::atomic<int64_t> raised_ns{0};  // when it was first raised since it was lowered; 0: it was not, but its time was up
  std::condition_variable* called = nullptr;  // wakes it from a rest
  bool hashing = false;                       // the back runs
  int64_t runs = 0;
  int64_t until_ns = kNever;  // when the timekeeper raises the flag
  int64_t rest_ns = 0;        // what it owes of a throttled back's rest; below 0: it rested too long

  // Time first, then the flag: who sees the flag finds the time.
  void raise() {
    if (yield.load(std::memory_order_acquire) != 0) return;
    int64_t none = 0;
    raised_ns.compare_exchange_strong(none, now_ns());
    stop();
  }
  void stop() {
    yield.store(1);
    yield.notify_all();  // a back may sleep on it
  }
};

// What is owed after so long, for work to have this share of the time.
inline int64_t rest_after(int64_t worked_ns, double share) {
  return static_cast<int64_t>(std::min(static_cast<double>(worked_ns) * (1 / share - 1), double{kMostRestNs}));
}

struct Loop::Impl {
  Impl(const SchedulerConfig& config, const LoopEngine* e, int n_threads, BackMode m, int n_corun)
      : core(config), has_engine(e != nullptr), threads(n_threads > 0 ? n_threads : default_threads()),
        corun_threads(n_corun), mode(m) {
    check(m);
    if (e) engine = *e;
    next_token.resize(static_cast<size_t>(config.max_num_seqs));
    gap.called = &work;
    corun.called = &beside;
  }

  void check(BackMode m) const;

  // loop_thread.cpp. Who is given the lock holds it.
  static void start(const std::shared_ptr<Impl>& self);  // with the lock
  void main();
  void step(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void slow_down(std::unique_lock<std::mutex>& lock, int64_t step_ns);
  void hold(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void idle(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void give_up(const std::string& why);
  void tell();  // with the lock
  bool give_way(std::unique_lock<std::mutex>& lock);
  void call() {  // what the loop thread has to look at came; with the lock
    calls.fetch_add(1);
    work.notify_one();
  }

  // hashing.cpp
  bool may_hash() const { return back && mode != BackMode::off && back_share > 0 && !closing; }
  bool may_hash_in_gaps() const { return may_hash() && !(n_beside && back->one_caller()); }
  void hash(std::unique_lock<std::mutex>& lock, Shift& shift, std::optional<Team>& team, int workers,
            int64_t until_ns = kNever);
  bool rest(std::unique_lock<std::mutex>& lock, Shift& shift, int64_t most_ns = kMostRestNs);
  void keep_time();
  bool arrange(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void dismiss(std::unique_lock<std::mutex>& lock);
  void work_beside(int workers);
  void drop(std::unique_lock<std::mutex>& lock, std::shared_ptr<Back>& now_back, const std::string& why);
  void recall(std::unique_lock<std::mutex>& lock);
  bool mine() const {  // what is done by the back or the engine itself must not wait for it
    return loop_id == std::this_thread::get_id() || beside_id == std::this_thread::get_id();
  }

  mutable std::mutex mutex;
  std::condition_variable work;    // for the loop thread, where it sleeps
  std::atomic<uint32_t> calls{0};  // and where it spins
  const bool spins = default_threads() > 1;
  std::condition_variable events;  // for wait_events, where it sleeps
  std::atomic<uint32_t> told{0};   // and where it spins
  std::atomic<int> spinning{0};    // how many do
  std::condition_variable quiet;   // for set_back and wait_idle
  std::condition_variable beside;  // for the thread that works beside
  std::condition_variable clock;   // for the timekeeper
  Scheduler core;
  const bool has_engine;
  LoopEngine engine;
  const int threads, corun_threads;
  std::vector<int32_t> next_token;
  std::thread thread, beside_thread, timekeeper;  // the loop thread starts and joins the others, where it needs them
  std::thread::id loop_id, beside_id;
  bool started = false, closing = false, stopped = false;
  int draining = 0;

  std::shared_ptr<Back> back;
  BackMode mode;
  double back_share = 1, front_share = 1;
  std::string back_error, record_error;
  Shift gap, corun;
  int n_beside = 0;  // workers that corun has now
  int n_hashing = 0;
  int64_t hashing_since_ns = 0, back_busy_ns = 0, back_runs = 0, yields = 0;
  int64_t clock_due_ns = kNever;  // when the timekeeper wakes
  std::array<int64_t, kYieldsKept> yield_ring{};
};

}  // namespace ww
