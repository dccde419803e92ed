// The invariants, as code. For tests: it looks at everything.
#include <algorithm>

#include "scheduler/require.h"
#include "scheduler/scheduler.h"

namespace ww {

void Scheduler::check() {
  check_seats();
  check_queue();
  int64_t ended = 0, steps = 0;
  for (const int64_t n : counters_.outcomes) ended += n;
  ended -= counters_.outcomes[static_cast<int>(Outcome::rejected)];
  require(ended + static_cast<int64_t>(live_.size()) == static_cast<int64_t>(last_id_), "each ends exactly once");
  for (const int64_t n : counters_.releases) steps += n;
  require(steps == counters_.steps, "each step has its reason");
  require(batch_.n_tokens <= config_.max_num_batched_tokens, "tokens are within the budget");
  require(has_work() || free_blocks_.size() == static_cast<size_t>(config_.num_blocks), "all blocks free when idle");
}

void Scheduler::check_seats() const {
  std::vector<uint8_t> owned(static_cast<size_t>(config_.num_blocks));
  const auto own = [&](int32_t block) {
    require(block >= 0 && block < config_.num_blocks, "a block is one of the pool's");
    require(!owned[static_cast<size_t>(block)]++, "no block is owned twice");
  };
  for (const int32_t block : free_blocks_) own(block);
  const Request* last = nullptr;
  for (const int32_t seat : order_) {
    const Seat& s = seat_at(seat);
    const Request& r = at(seat);
    require(r.seat == seat && !r.waits && r.admitted, "a seat and its request know each other");
    require(!last || runs_before(*last, r), "the running are in order");
    require(s.computed < s.total && s.total <= s.n_blocks * int64_t{config_.block_size} + 1,
            "a sequence's blocks hold all its tokens but the newest");
    for (int32_t i = 0; i < s.n_blocks; ++i) own(blocks_of(seat)[i]);
    last = &r;
  }
  require(std::count(owned.begin(), owned.end(), 1) == config_.num_blocks, "free and owned make up all blocks");
  require(order_.size() + free_seats_.size() == static_cast<size_t>(config_.max_num_seqs), "seats add up");
}

void Scheduler::check_queue() {
  std::vector<const Queued*> members;
  int64_t tokens = 0;
  live_.each([&](const Request& r) {
    require(live_.find(r.id) == &r && r.waits == (r.seat == kNone), "each live request is running or waiting");
    require((r.timer_slot >= 0) == (r.params.timeout_ns != 0), "each timeout is armed");
    require(!r.params.timeout_ns || next_wakeup_ns() <= std::max(r.params.timeout_ns, timeouts_.time_ns()),
            "there is a wake-up for each timeout");
    if (r.waits) tokens += r.n_tokens;
    members.push_back(&r);
  });
  for (const int32_t seat : order_)  // ended in flight
    if (seat_at(seat).ended) members.push_back(&at(seat));
  require(tokens == waiting_tokens_, "the queue's tokens add up");
  require(in_flight() || !may_hold() || next_wakeup_ns() <= delay_end_ns(), "there is a wake-up for a held batch");
  queue_.check(members, counter_bound());
}

}  // namespace ww
