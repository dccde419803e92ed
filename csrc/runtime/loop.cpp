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
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "runtime/spin.h"

namespace ww {
namespace {

constexpr size_t kYieldsKept = 1024;
constexpr int64_t kPeriodNs = 10'000'000;    // a throttled back's work and rest together
constexpr int64_t kLeastSlotNs = 200'000;    // a shorter one is not worth its beginning: the rest is longer instead
constexpr int64_t kMostRestNs = 3'600'000'000'000;
constexpr int64_t kHoldWorthNs = 200'000;  // a batch held for so long is worth hashing meanwhile
constexpr int64_t kLeadNs = 50'000;        // before its end: the timekeeper must wake, and the back leave

std::atomic<int> fork_generation{0};

int generation() {
  static std::once_flag at_fork;
  std::call_once(at_fork, [] { pthread_atfork(nullptr, nullptr, [] { fork_generation.fetch_add(1); }); });
  return fork_generation.load(std::memory_order_relaxed);
}

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

int64_t rest_after(int64_t worked_ns, double share) {
  return static_cast<int64_t>(std::min(static_cast<double>(worked_ns) * (1 / share - 1), double{kMostRestNs}));
}

}  // namespace

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

  static void start(const std::shared_ptr<Impl>& self);  // with the lock
  void check(BackMode m) const;
  void main();
  void step(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void slow_down(std::unique_lock<std::mutex>& lock, int64_t step_ns);
  void hold(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void hash(std::unique_lock<std::mutex>& lock, Shift& shift, std::optional<Team>& team, int workers,
            int64_t until_ns = kNever);
  bool rest(std::unique_lock<std::mutex>& lock, Shift& shift, int64_t most_ns = kMostRestNs);
  void idle(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  bool arrange(std::unique_lock<std::mutex>& lock, std::optional<Team>& team);
  void dismiss(std::unique_lock<std::mutex>& lock);
  void work_beside(int workers);
  void keep_time();
  void drop(std::unique_lock<std::mutex>& lock, std::shared_ptr<Back>& now_back, const std::string& why);
  void give_up(const std::string& why);
  void recall(std::unique_lock<std::mutex>& lock);
  bool mine() const {  // what is done by the back or the engine itself must not wait for it
    return loop_id == std::this_thread::get_id() || beside_id == std::this_thread::get_id();
  }
  bool may_hash() const { return back && mode != BackMode::off && back_share > 0 && !closing; }
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

void Loop::Impl::check(BackMode m) const {
  if (m == BackMode::corun && (corun_threads < 1 || corun_threads >= threads))
    throw std::invalid_argument("corun takes " + std::to_string(corun_threads) + " of " + std::to_string(threads) +
                                " threads; it must take one at least, and leave one at least");
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
      if (arrange(lock, team)) continue;
      if (core.has_work()) step(lock, team);
      else if (!may_hash()) idle(lock, team);
      else if (!rest(lock, gap)) hash(lock, gap, team, threads - n_beside);
    } catch (const std::exception& error) {
      if (!lock.owns_lock()) lock.lock();
      give_up(error.what());
    }
  }
  dismiss(lock);
  core.cancel_all(now_ns());
  record_error = core.stop_recording();
  stopped = true;
  events.notify_all();
  quiet.notify_all();
  clock.notify_all();
  lock.unlock();
  if (timekeeper.joinable()) timekeeper.join();
}

void Loop::Impl::step(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  const int64_t begun_ns = now_ns();
  const ww_batch* batch = core.schedule(begun_ns);
  tell();
  if (!batch) return hold(lock, team);
  lock.unlock();
  if (!team) team.emplace(threads - n_beside, threads);
  std::fill_n(next_token.begin(), batch->n_seqs, -1);
  ww_out out{next_token.data(), nullptr};
  int code = engine.native.step(engine.native.self, batch, &out);
  if (code == WW_OK) code = engine.native.sync(engine.native.self);
  const std::string why = code == WW_OK ? "" : engine.describe ? engine.describe(code) : ww_strerror(code);
  lock = lock_soon(mutex);
  const int64_t ended_ns = now_ns();
  if (code == WW_OK) core.complete(ended_ns, next_token.data());
  else core.fail(ended_ns, why);
  tell();
  if (front_share < 1) slow_down(lock, ended_ns - begun_ns);
}

// The rest after a step of a throttled engine; another share or the end cuts it short.
void Loop::Impl::slow_down(std::unique_lock<std::mutex>& lock, int64_t step_ns) {
  const int64_t begun_ns = now_ns();
  while (!closing && front_share < 1) {
    const int64_t left_ns = begun_ns + rest_after(step_ns, front_share) - now_ns();
    if (left_ns <= 0) return;
    work.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
}

// A batch that waits for more requests, with the back at work if that is worth its while.
void Loop::Impl::hold(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  if (!core.has_work()) return;  // all timed out
  const int64_t end_ns = core.next_wakeup_ns(), left_ns = end_ns - now_ns();
  if (left_ns <= 0) return;
  if (left_ns >= kHoldWorthNs && may_hash()) {
    if (!rest(lock, gap, left_ns)) hash(lock, gap, team, threads - n_beside, end_ns - kLeadNs);
  } else {
    work.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
}

// The flag is lowered under the lock, with nothing queued that this thread has not seen; who raises it does so once
// more after queueing. So it is never down beside a request that this thread has not seen.
void Loop::Impl::hash(std::unique_lock<std::mutex>& lock, Shift& shift, std::optional<Team>& team, int workers,
                      int64_t until_ns) {
  std::shared_ptr<Back> now_back = back;
  const int64_t begun_ns = now_ns();
  if (back_share < 1)
    until_ns = std::min(until_ns, begun_ns + std::max(kLeastSlotNs, static_cast<int64_t>(back_share * kPeriodNs)));
  shift.raised_ns.store(0);
  shift.yield.store(0);
  shift.hashing = true;
  shift.until_ns = until_ns;
  ++shift.runs;
  ++back_runs;
  if (n_hashing++ == 0) hashing_since_ns = begun_ns;
  std::string why;
  try {
    if (until_ns < clock_due_ns) {
      if (!timekeeper.joinable()) timekeeper = std::thread([this] { keep_time(); });
      clock.notify_one();
    }
    lock.unlock();
    if (!team) team.emplace(workers, threads);
    now_back->run(*team, shift.yield);
  } catch (const std::exception& error) {
    why = error.what();
    if (why.empty()) why = "an error without a text";
  }
  const int64_t returned_ns = now_ns();
  if (!lock.owns_lock()) lock.lock();
  const int64_t raised_ns = shift.raised_ns.load();
  // A raise between the two lines above found nothing to stop.
  if (&shift == &gap && raised_ns != 0 && raised_ns <= returned_ns)
    yield_ring[static_cast<size_t>(yields++) % kYieldsKept] = returned_ns - raised_ns;
  if (--n_hashing == 0) back_busy_ns += returned_ns - hashing_since_ns;
  if (0 < back_share && back_share < 1) shift.rest_ns += rest_after(returned_ns - begun_ns, back_share);
  shift.hashing = false;
  quiet.notify_all();
  if (!why.empty() || back != now_back) drop(lock, now_back, why);
}

// Sits out what the shift owes of its rest, for so long at most, or until it is called. False: it owes none.
bool Loop::Impl::rest(std::unique_lock<std::mutex>& lock, Shift& shift, int64_t most_ns) {
  if (shift.rest_ns <= 0) return false;
  const int64_t begun_ns = now_ns();
  shift.called->wait_for(lock, std::chrono::nanoseconds(std::min(shift.rest_ns, most_ns)));
  shift.rest_ns = std::max(shift.rest_ns - (now_ns() - begun_ns), -kPeriodNs);
  return true;
}

// Ends the runs whose time is up. A thread of its own: a courier in Python may wait for the GIL when it should look.
void Loop::Impl::keep_time() {
  std::unique_lock lock(mutex);
  while (!stopped) {
    const int64_t now = now_ns();
    clock_due_ns = kNever;
    for (Shift* shift : {&gap, &corun}) {
      if (!shift->hashing) continue;
      if (shift->until_ns <= now) shift->stop();
      else clock_due_ns = std::min(clock_due_ns, shift->until_ns);
    }
    if (clock_due_ns == kNever) clock.wait(lock);
    else clock.wait_for(lock, std::chrono::nanoseconds(clock_due_ns - now));
  }
}

// Corun has a thread and workers of its own as long as there is a back. The loop lets its team go before that gets or
// gives up its workers, so that never more of them than `threads` are awake. True: something changed.
bool Loop::Impl::arrange(std::unique_lock<std::mutex>& lock, std::optional<Team>& team) {
  const int wanted = back && mode == BackMode::corun ? corun_threads : 0;
  if (wanted == n_beside) return false;
  if (n_beside) dismiss(lock);
  lock.unlock();
  team.reset();
  lock.lock();
  if (!wanted) return true;
  try {
    beside_thread = std::thread([this, wanted] { work_beside(wanted); });
    beside_id = beside_thread.get_id();
    n_beside = wanted;
  } catch (const std::exception& error) {
    std::shared_ptr<Back> now_back = back;
    drop(lock, now_back, error.what());
  }
  return true;
}

void Loop::Impl::dismiss(std::unique_lock<std::mutex>& lock) {
  if (!n_beside) return;
  n_beside = 0;
  corun.raise();
  beside.notify_all();
  lock.unlock();
  beside_thread.join();
  lock.lock();
  beside_id = {};
}

// The thread that hashes beside the engine's steps; it never gives way to a request.
void Loop::Impl::work_beside(int workers) {
  std::optional<Team> team;
  std::unique_lock lock(mutex);
  while (n_beside)
    if (!may_hash() || mode != BackMode::corun) beside.wait(lock);
    else if (!rest(lock, corun)) hash(lock, corun, team, workers);
}

// Lets go of a back, without the lock: its last owner may need the GIL for that. One that threw is not run again.
void Loop::Impl::drop(std::unique_lock<std::mutex>& lock, std::shared_ptr<Back>& now_back, const std::string& why) {
  if (!why.empty()) {
    back_error = why;
    if (back == now_back) back.reset();
    gap.raise();
    corun.raise();
    call();
  }
  lock.unlock();
  now_back.reset();
  lock.lock();
}

// What threw ends alone: the batch in flight fails; with none (no memory for a batch), all requests are let go, so that
// nobody waits for ever.
void Loop::Impl::give_up(const std::string& why) {
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
  if (!called) work.wait(lock, [&] { return calls.load() != seen; });
}

// Calls both shifts back from the back as it was, and waits until they have left it.
void Loop::Impl::recall(std::unique_lock<std::mutex>& lock) {
  gap.raise();
  corun.raise();
  call();
  beside.notify_all();
  if (mine()) return;
  const int64_t gaps = gap.runs, coruns = corun.runs;
  quiet.wait(lock, [&] {
    return stopped || ((!gap.hashing || gap.runs != gaps) && (!corun.hashing || corun.runs != coruns));
  });
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
