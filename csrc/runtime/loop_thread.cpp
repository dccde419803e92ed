// The loop's thread: it steps the engine while there is work, else hashes, else sleeps.
#include <signal.h>

#include <chrono>

#include "runtime/loop_impl.h"
#include "runtime/spin.h"

namespace ww {
namespace {

constexpr int64_t kHoldWorthNs = 200'000;  // a batch held for so long is worth hashing meanwhile
constexpr int64_t kLeadNs = 50'000;        // before its end: the timekeeper must wake, and the back leave

}  // namespace

void Loop::Impl::tell() {
  if (!core.events().empty()) {
    told.fetch_add(1);
    if (spinning.load() == 0) events.notify_all();  // who spins takes them all
  }
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
      else if (!may_hash_in_gaps()) idle(lock, team);
      else if (!give_way(lock) && !rest(lock, gap)) hash(lock, gap, team, threads - n_beside);
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
  if (left_ns >= kHoldWorthNs && may_hash_in_gaps()) {
    if (!rest(lock, gap, left_ns)) hash(lock, gap, team, threads - n_beside, end_ns - kLeadNs);
  } else {
    work.wait_for(lock, std::chrono::nanoseconds(left_ns));
  }
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

// Lets those who spin for what was told see it. Who spins gives its core away, and a back that began at once would have
// it for milliseconds. False: nobody spins.
bool Loop::Impl::give_way(std::unique_lock<std::mutex>& lock) {
  if (spinning.load() == 0) return false;
  const uint32_t seen = calls.load();
  lock.unlock();
  spin_until([&] { return spinning.load() == 0 || calls.load(std::memory_order_relaxed) != seen; });
  lock.lock();
  return true;
}

// What threw ends alone: the batch in flight fails; with none (no memory for a batch), all requests are let go, so that
// nobody waits for ever.
void Loop::Impl::give_up(const std::string& why) {
  if (core.in_flight()) core.fail(now_ns(), why);
  else core.cancel_all(now_ns());
  tell();
}

}  // namespace ww
