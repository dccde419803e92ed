// The back at work: in the gaps, beside the engine's steps, and no more than its share of the time.
#include <chrono>

#include "runtime/loop_impl.h"

namespace ww {
namespace {

constexpr int64_t kPeriodNs = 10'000'000;    // a throttled back's work and rest together
constexpr int64_t kLeastSlotNs = 200'000;    // a shorter one is not worth its beginning: the rest is longer instead

}  // namespace

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

}  // namespace ww
