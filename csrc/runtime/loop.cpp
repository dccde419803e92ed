#include "runtime/loop.h"

#include <pthread.h>

#include <chrono>
#include <stdexcept>
#include <utility>

#include "runtime/loop_impl.h"
#include "runtime/spin.h"

namespace ww {
namespace {

std::atomic<int> fork_generation{0};

int generation() {
  static std::once_flag at_fork;
  std::call_once(at_fork, [] { pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1); }); });
  return fork_generation.load(std::memory_order_relaxed);
}

}  // namespace

void Loop::Impl::check(BackMode m) const {
  if (m == BackMode::corun && (corun_threads < 1 || corun_threads >= threads))
    throw std::invalid_argument("corun takes " + std::to_string(corun_threads) + " of " + std::to_string(threads) +
                                " threads; it must take one at least, and leave one at least");
}

Loop::Loop(const SchedulerConfig& config, const LoopEngine* engine, int threads, const std::string& record,
           BackMode mode, int corun_threads)
    : impl_(std::make_shared<Impl>(config, engine, threads, mode, corun_threads)), born_(generation()) {
  if (!record.empty()) impl_->core.record(record);
}

// In a forked child the thread is gone and the mutex may be held for ever: the copy is left as it is.
Loop::~Loop() {
  if (forked()) new std::shared_ptr<Impl>(std::move(impl_));
  else close();
}

bool Loop::forked() const { return born_ != fork_generation.load(std::memory_order_relaxed); }

int64_t Loop::submit(const int32_t* tokens, int32_t n, const RequestParams& params) {
  if (forked()) return kRejectClosed;
  Impl& m = *impl_;
  if (!m.has_engine) return kRejectNoEngine;
  m.gap.raise();
  const auto lock = lock_soon(m.mutex);
  m.gap.raise();
  if (m.closing) return kRejectClosed;
  Impl::start(impl_);  // first: it may throw
  const int64_t timeout_ns = m.core.next_timeout_ns();
  const int64_t id = m.core.submit(now_ns(), tokens, n, params);
  if (id > 0) m.call();
  if (m.core.next_timeout_ns() < timeout_ns) m.events.notify_all();  // wait_events keeps the time
  return id;
}

bool Loop::cancel(uint64_t id, Events* into) {
  if (into) into->clear();
  if (forked()) return false;
  Impl& m = *impl_;
  const auto lock = lock_soon(m.mutex);
  const bool was_live = m.core.cancel(now_ns(), id);
  if (into) m.core.take_events(*into);
  m.tell();
  return was_live;
}

void Loop::set_back(std::shared_ptr<Back> back) {
  if (forked()) return;
  Impl& m = *impl_;
  std::unique_lock lock(m.mutex);
  if (m.closing) return;
  if (m.back == back) return;
  if (back) Impl::start(impl_);
  m.back.swap(back);  // the old one goes with the argument, after the lock: it may need the GIL to go
  m.recall(lock);
}

void Loop::set_back_mode(BackMode mode) {
  impl_->check(mode);
  if (forked()) return;
  Impl& m = *impl_;
  std::unique_lock lock(m.mutex);
  if (m.closing || mode == m.mode) return;
  m.mode = mode;
  m.recall(lock);
}

void Loop::throttle(double back, double front) {
  if (!(0 <= back && back <= 1 && 0 < front && front <= 1))
    throw std::invalid_argument("the back's share must be in [0, 1], the front's in (0, 1]");
  if (forked()) return;
  Impl& m = *impl_;
  std::lock_guard lock(m.mutex);
  m.back_share = back;
  m.front_share = front;
  for (Shift* shift : {&m.gap, &m.corun}) {
    shift->rest_ns = 0;
    shift->raise();  // a run that was without end gets one
  }
  m.call();
  m.beside.notify_all();
}

std::string Loop::take_back_error() {
  if (forked()) return {};
  std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->back_error, {});
}

bool Loop::wait_events(int64_t timeout_ms, bool eager) {
  if (forked()) return false;
  Impl& m = *impl_;
  std::unique_lock lock(m.mutex);
  const int64_t until_ns = now_ns() + timeout_ms * 1'000'000;
  for (;;) {
    const int64_t now = now_ns();
    m.core.expire(now);
    if (!m.core.has_work()) m.quiet.notify_all();
    if (m.stopped || !m.core.events().empty()) break;
    if (std::exchange(eager, false)) {
      const uint32_t seen = m.told.load();
      m.spinning.fetch_add(1);
      lock.unlock();
      spin_until([&] { return m.told.load(std::memory_order_relaxed) != seen; });
      m.spinning.fetch_sub(1);
      lock.lock();
      continue;
    }
    if (now >= until_ns) break;
    m.events.wait_for(lock, std::chrono::nanoseconds(std::min(until_ns, m.core.next_timeout_ns()) - now));
  }
  return !m.stopped || !m.core.events().empty();
}

void Loop::leave_events() {
  if (forked()) return;
  std::lock_guard lock(impl_->mutex);
  impl_->events.notify_all();
}

void Loop::take_events(Events& into) {
  into.clear();
  if (forked()) return;
  const auto lock = lock_soon(impl_->mutex);
  impl_->core.take_events(into);
}

void Loop::set_draining(bool draining) {
  if (forked()) return;
  Impl& m = *impl_;
  std::lock_guard lock(m.mutex);
  m.draining += draining ? 1 : -1;
  m.core.set_draining(m.draining > 0);
  m.gap.raise();
  m.call();  // what waits need not wait for more
}

bool Loop::wait_idle(int64_t timeout_ms) {
  if (forked()) return true;
  Impl& m = *impl_;
  std::unique_lock lock(m.mutex);
  return m.quiet.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return !m.core.has_work(); });
}

LoopStats Loop::stats() const {
  LoopStats s{};
  if (forked()) return s;
  const Impl& m = *impl_;
  std::lock_guard lock(m.mutex);
  s.scheduler = m.core.counters();
  s.decision_hash = m.core.decision_hash();
  s.back_busy_ns = m.back_busy_ns + (m.n_hashing ? now_ns() - m.hashing_since_ns : 0);
  s.back_runs = m.back_runs;
  s.back_mode = m.mode;
  s.back_share = m.back_share;
  s.front_share = m.front_share;
  s.yields = m.yields;
  s.back_error = m.back_error;
  const auto kept = std::min<int64_t>(m.yields, kYieldsKept);
  for (int64_t i = m.yields - kept; i < m.yields; ++i)
    s.yield_times_ns.push_back(m.yield_ring[static_cast<size_t>(i) % kYieldsKept]);
  return s;
}

std::string Loop::record_error() const {
  if (forked()) return {};
  std::lock_guard lock(impl_->mutex);
  return impl_->record_error;
}

void Loop::close() {
  if (forked()) return;
  Impl& m = *impl_;
  std::thread thread;
  {
    std::unique_lock lock(m.mutex);
    m.closing = true;
    m.gap.raise();
    m.call();
    if (!m.started) {
      m.record_error = m.core.stop_recording();
      m.stopped = true;
      m.events.notify_all();
      return;
    }
    thread = std::move(m.thread);
    if (m.mine()) {  // an engine or a back let go of its own loop, in a step or a run
      if (thread.joinable()) thread.detach();
      return;
    }
    if (!thread.joinable()) m.quiet.wait(lock, [&] { return m.stopped; });  // another closer joins
  }
  if (thread.joinable()) thread.join();
}

}  // namespace ww
