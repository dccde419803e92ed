#include "runtime/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/spin.h"

namespace ww {
namespace {

// One phase's work, in one word: how many items, and the next item to take. A helper that comes late takes a ticket of
// whatever phase runs by then, so nobody is ever waited for who holds no ticket.
constexpr int kIndexBits = 32;
constexpr uint64_t index_of(uint64_t ticket) { return static_cast<uint32_t>(ticket); }
constexpr uint64_t count_of(uint64_t ticket) { return ticket >> kIndexBits; }

}  // namespace

struct TeamState {
  alignas(64) std::atomic<uint64_t> ticket{0};
  alignas(64) std::atomic<uint32_t> done{0};
  alignas(64) std::atomic<uint32_t> phase{0};   // futex word: what sleeping helpers watch
  std::atomic<uint32_t> sleepers{0};
  std::atomic<uint32_t> helpers_inside{0};
  std::atomic<bool> dismissed{false};
  void (*fn)(void*, int) = nullptr;
  void* ctx = nullptr;
  int size = 1;
  bool busy = false;  // the caller's own: a phase is under way
  std::atomic<bool> failed{false};
  std::exception_ptr error;  // what the first item that failed threw

  void item(int i) {
    try {
      fn(ctx, i);
    } catch (...) {
      if (!failed.exchange(true, std::memory_order_acq_rel)) error = std::current_exception();
    }
  }

  // Takes and does items until the phase has none left.
  void work() {
    for (;;) {
      uint64_t seen = ticket.load(std::memory_order_acquire);
      do {
        if (index_of(seen) >= count_of(seen)) return;
      } while (!ticket.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel, std::memory_order_acquire));
      item(static_cast<int>(index_of(seen)));
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == count_of(seen)) done.notify_one();
    }
  }

  // The phase is read before `dismissed`, which is stored before the last phase begins: so nobody sleeps through that.
  void help() {
    for (;;) {
      const uint32_t before = phase.load(std::memory_order_acquire);
      if (dismissed.load(std::memory_order_acquire)) return;
      work();
      if (!spin_until([&] { return phase.load(std::memory_order_acquire) != before; })) {
        sleepers.fetch_add(1, std::memory_order_seq_cst);
        phase.wait(before, std::memory_order_seq_cst);
        sleepers.fetch_sub(1, std::memory_order_relaxed);
      }
    }
  }

  void next_phase() {
    phase.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_seq_cst) != 0) phase.notify_all();
  }
};

namespace {

struct Helper {
  std::mutex mutex;
  std::condition_variable wake;
  TeamState* team = nullptr;
};

class Pool {
 public:
  static Pool& instance();

  // Sends up to `wanted` idle helpers to the team; starts new ones while there are fewer than `most` in all.
  int lease(TeamState* team, int wanted, int most) {
    std::vector<Helper*> taken;
    {
      std::lock_guard lock(mutex_);
      while (total_ < most) {
        auto* helper = new Helper;  // lives as long as the process, like its thread
        try {
          std::thread(&Pool::main, this, helper).detach();
        } catch (...) {
          delete helper;
          break;  // no more threads to be had: the caller gets on with those there are
        }
        idle_.push_back(helper);
        ++total_;
      }
      const auto n = std::min<size_t>(idle_.size(), static_cast<size_t>(wanted));
      taken.assign(idle_.end() - static_cast<std::ptrdiff_t>(n), idle_.end());
      idle_.resize(idle_.size() - n);
    }
    team->helpers_inside.store(static_cast<uint32_t>(taken.size()), std::memory_order_relaxed);
    for (Helper* helper : taken) {
      std::lock_guard lock(helper->mutex);
      helper->team = team;
      helper->wake.notify_one();
    }
    return static_cast<int>(taken.size());
  }

 private:
  void main(Helper* helper) {
    for (;;) {
      TeamState* team;
      {
        std::unique_lock lock(helper->mutex);
        helper->wake.wait(lock, [&] { return helper->team != nullptr; });
        team = helper->team;
        helper->team = nullptr;
      }
      team->help();
      {
        std::lock_guard lock(mutex_);
        idle_.push_back(helper);
      }
      // The last touch of `team`: its owner may free it as soon as it sees zero.
      team->helpers_inside.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex mutex_;
  std::vector<Helper*> idle_;
  int total_ = 0;
};

// Never destroyed: helpers may outlive every static. After fork the child starts a pool of its own, since the
// helpers stayed behind in the parent.
std::atomic<Pool*> the_pool{nullptr};

Pool& Pool::instance() {
  Pool* pool = the_pool.load(std::memory_order_acquire);
  if (!pool) {
    static std::once_flag at_fork;
    std::call_once(at_fork, [] {
      pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr, std::memory_order_release); });
    });
    auto* fresh = new Pool;
    if (the_pool.compare_exchange_strong(pool, fresh, std::memory_order_acq_rel)) return *fresh;
    delete fresh;
  }
  return *pool;
}

thread_local TeamState* current_team = nullptr;

// The cgroup's CPU quota in CPUs, or a negative number where there is none.
double cgroup_quota() {
  double quota = -1, period = -1;
  std::string first;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period && first != "max") {
    quota = std::stod(first);
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return -1;
  }
  return quota > 0 && period > 0 ? quota / period : -1;
}

}  // namespace

int default_threads() {
  auto cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = CPU_COUNT(&mask);
#endif
  if (const double quota = cgroup_quota(); quota > 0) cpus = std::min(cpus, static_cast<int>(std::ceil(quota)));
  return std::max(cpus, 1);
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Team::Team(int threads, int among) : state_(current_team), owner_(current_team == nullptr) {
  if (!owner_) return;
  state_ = new TeamState;
  const int wanted = (threads > 0 ? threads : default_threads()) - 1;
  if (wanted > 0) state_->size += Pool::instance().lease(state_, wanted, std::max(wanted, among - 1));
  current_team = state_;
}

Team::~Team() {
  if (!owner_) return;
  current_team = nullptr;
  state_->dismissed.store(true, std::memory_order_release);
  state_->next_phase();
  while (state_->helpers_inside.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  delete state_;
}

int Team::size() const { return state_->size; }

void Team::run_raw(int n, void (*fn)(void*, int), void* ctx) {
  if (n <= 0) return;
  TeamState& s = *state_;
  if (s.size == 1 || n == 1 || s.busy) {
    for (int i = 0; i < n; ++i) fn(ctx, i);
    return;
  }
  s.busy = true;
  s.fn = fn;
  s.ctx = ctx;
  s.done.store(0, std::memory_order_relaxed);
  s.ticket.store(static_cast<uint64_t>(n) << kIndexBits, std::memory_order_release);
  s.next_phase();
  s.work();
  const auto all = static_cast<uint32_t>(n);
  if (!spin_until([&] { return s.done.load(std::memory_order_acquire) == all; }))
    for (uint32_t done; (done = s.done.load(std::memory_order_acquire)) != all;)
      s.done.wait(done, std::memory_order_acquire);
  s.busy = false;
  if (s.failed.exchange(false, std::memory_order_acq_rel)) std::rethrow_exception(std::exchange(s.error, nullptr));
}

}  // namespace ww
