#include "runtime/loop.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "runtime/spin.h"

namespace ww {
namespace {

constexpr size_t kYieldsKept = 1024;

std::atomic<int> fork_generation{0};

int generation() {
  static std::once_flag at_fork;
  std::call_once(at_fork, [] { pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1); }); });
  return fork_generation.load(std::memory_order_relaxed);
}

}  // namespace

struct Loop::Impl {
  Impl(const SchedulerConfig& config, const LoopEngine* e, int n_threads)
      : core(config), has_engine(e != nullptr), threads(n_threads) {
    if (e) engine = *e;
    next_token.resize(static_cast<size_t>(config.max_num_seqs));
  }

  static void start(const std::shared_ptr<Impl>& self);  // with the lock
  void main();
  void step(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void hold(std::unique_lock<std::mutex>& lock);
  void hash(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void idle(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void give_up(std::unique_lock<std::mutex>& lock, const std::string& why);
  void raise_yield();
  void tell();  // with the lock
  void call() {  // what the loop thread has to look at came; with the lock
    calls.fetch_add(1);
    work.notify_one();
  }

  mutable std::mutex mutex;
  std::condition_variable work;    // for the loop thread, where it sleeps
  std::atomic<uint32_t> calls{0};  // and where it spins
  const bool spins = default_threads() > 1;
  std::condition_variable events;  // for wait_events
  std::condition_variable quiet;   // for set_back and wait_idle
  Scheduler core;
  const bool has_engine;
  LoopEngine engine;
  const int threads;
  std::vector<int32_t> next_token;
  std::thread thread;
  std::thread::id loop_id;
  bool started = false, closing = false, stopped = false;
  int draining = 0;

  std::shared_ptr<Back> back;
  std::string back_error, record_error;
  bool hashing = false;  // the back runs
  int64_t hashing_since_ns = 0, back_busy_ns = 0, back_runs = 0, yields = 0;
  std::array<int64_t, kYieldsKept> yield_ring{};

  alignas(64) YieldFlag yield{1};         // 0 only while the back may run
  std::atomic<int64_t> yield_raised_ns{0};  // when it was first raised since it was lowered; 0: it was not
};

// Time first, then the flag: who sees the flag finds the time.
void Loop::Impl::raise_yield() {
  if (yield.load(std::memory_order_acquire) != 0) return;
  int64_t none = 0;
  yield_raised_ns.compare_exchange_strong(none, now_ns());
  yield.store(1);
  yield.notify_all();  // a back may sleep on it
}

void Loop::Impl::tell() {
  if (!core.events().empty()) events.notify_all();
  if (!core.has_work()) quiet.notify_all();
}

// The thread takes no signals but its own faults: an interpreter's main thread must get them.
void Loop::Impl::start(const std::shared_ptr<Impl>& self) {
  if (self->started) return;
  sigset_t all, before;
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);  // or no handler could tell of them
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    self->thread = std::thread([self] { self->main(); });
    self->loop_id = self->thread.get_id();
    self->started = true;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Loop::Impl::main() {
  std::optional<Team> team;
  std::unique_lock lock(mutex);
  while (!closing) {
    try {
      if (core.has_work()) step(lock, team);
      else if (back) hash(lock, team);
      else idle(lock, team);
    } catch (const std::exception& error) {
      if (!lock.owns_lock()) lock.lock();
      give_up(lock, error.what());
    }
  }
  core.cancel_all(now_ns());
  record_error = core.stop_recording();
  stopped = true;
  events.notify_all();
  quiet.notify_all();
}

void Loop::Impl::step(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  const ww_batch* batch = core.schedule(now_ns());
  tell();
  if (!batch) return hold(lock);
  lock.unlock();
  if (!team) team.emplace(threads);
  std::fill_n(next_token.begin(), batch->n_seqs, -1);
  ww_out out{next_token.data(), nullptr};
  int code = engine.native.step(engine.native.self, batch, &out);
  if (code == WW_OK) code = engine.native.sync(engine.native.self);
  const std::string why = code == WW_OK ? "" : engine.describe ? engine.describe(code) : ww_strerror(code);
  lock = lock_soon(mutex);
  if (code == WW_OK) core.complete(now_ns(), next_token.data());
  else core.fail(now_ns(), why);
  tell();
}

// A batch that waits for more requests. The back does not run meanwhile: it would have to stop within microseconds.
void Loop::Impl::hold(std::unique_lock<std::mutex>& lock) {
  if (!core.has_work()) return;  // all timed out
  const int64_t left_ns = core.next_wakeup_ns() - now_ns();
  if (left_ns > 0) work.wait_for(lock, std::chrono::nanoseconds(left_ns));
}

// The flag is lowered under the lock, with nothing queued; who raises it does so once more after queueing. So it is
// never down beside a request that this thread has not seen.
void Loop::Impl::hash(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  const std::shared_ptr<Back> mine = back;
  yield_raised_ns.store(0);
  yield.store(0);
  hashing = true;
  hashing_since_ns = now_ns();
  ++back_runs;
  lock.unlock();
  if (!team) team.emplace(threads);
  mine->run(*team, yield);
  const int64_t returned_ns = now_ns();
  lock.lock();
  const int64_t raised_ns = yield_raised_ns.load();
  // A raise between the two lines above found nothing to stop.
  if (raised_ns != 0 && raised_ns <= returned_ns)
    yield_ring[static_cast<size_t>(yields++) % kYieldsKept] = returned_ns - raised_ns;
  back_busy_ns += returned_ns - hashing_since_ns;
  hashing = false;
  quiet.notify_all();
}

// What threw ends alone: the back is dropped, the batch in flight fails; with neither (no memory for a batch), all
// requests are let go, so that nobody waits for ever.
void Loop::Impl::give_up(std::unique_lock<std::mutex>& lock, const std::string& why) {
  if (hashing) {
    hashing = false;
    back_busy_ns += now_ns() - hashing_since_ns;
    back_error = why;
    std::shared_ptr<Back> dropped = std::move(back);
    quiet.notify_all();
    lock.unlock();  // the back may need the GIL to go
    dropped.reset();
    lock.lock();
    return;
  }
  if (core.in_flight()) core.fail(now_ns(), why);
  else core.cancel_all(now_ns());
  tell();
}

// Who asks once often asks again at once, as a burst or a caller in a loop does: so it spins before it sleeps.
void Loop::Impl::idle(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  const uint32_t seen = calls.load();
  lock.unlock();
  team.reset();  // its helpers must not spin as well: who waits for an answer needs a core, too
  const bool called = spins && spin_until([&] { return calls.load(std::memory_order_relaxed) != seen; });
  lock.lock();
  if (called) return;
  work.wait(lock, [&] { return closing || core.has_work() || back; });
}

Loop::Loop(const SchedulerConfig& config, const LoopEngine* engine, int threads, const std::string& record)
    : impl_(std::make_shared<Impl>(config, engine, threads)), born_(generation()) {
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
  m.raise_yield();
  const auto lock = lock_soon(m.mutex);
  m.raise_yield();
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
  m.raise_yield();
  m.call();
  if (m.loop_id == std::this_thread::get_id()) return;  // the back itself, in its run
  const int64_t run = m.back_runs;
  m.quiet.wait(lock, [&] { return !m.hashing || m.back_runs != run || m.stopped; });
}

std::string Loop::take_back_error() {
  if (forked()) return {};
  std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->back_error, {});
}

bool Loop::wait_events(int64_t timeout_ms) {
  if (forked()) return false;
  Impl& m = *impl_;
  std::unique_lock lock(m.mutex);
  const int64_t until_ns = now_ns() + timeout_ms * 1'000'000;
  for (;;) {
    const int64_t now = now_ns();
    m.core.expire(now);
    m.tell();
    if (m.stopped || !m.core.events().empty() || now >= until_ns) break;
    m.events.wait_for(lock, std::chrono::nanoseconds(std::min(until_ns, m.core.next_timeout_ns()) - now));
  }
  return !m.stopped || !m.core.events().empty();
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
  s.back_busy_ns = m.back_busy_ns + (m.hashing ? now_ns() - m.hashing_since_ns : 0);
  s.back_runs = m.back_runs;
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
    m.raise_yield();
    m.call();
    if (!m.started) {
      m.record_error = m.core.stop_recording();
      m.stopped = true;
      m.events.notify_all();
      return;
    }
    thread = std::move(m.thread);
    if (m.loop_id == std::this_thread::get_id()) {  // an engine let go of its own loop, in a step
      if (thread.joinable()) thread.detach();
      return;
    }
    if (!thread.joinable()) m.quiet.wait(lock, [&] { return m.stopped; });  // another closer joins
  }
  if (thread.joinable()) thread.join();
}

}  // namespace ww
