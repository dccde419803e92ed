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
  std::vector<int32_t> holders(static_cast<size_t>(config_.num_blocks)), free(holders);
  const auto count = [&](std::vector<int32_t>& of, int32_t block) {
    require(block >= 0 && block < config_.num_blocks, "a block is one of the pool's");
    ++of[static_cast<size_t>(block)];
  };
  for (const int32_t block : free_blocks_) count(free, block);
  const Request* last = nullptr;
  for (const int32_t seat : order_) {
    const Seat& s = seat_at(seat);
    const Request& r = at(seat);
    require(r.seat == seat && !r.waits && r.admitted, "a seat and its request know each other");
    require(!last || runs_before(*last, r), "the running are in order");
    require(s.computed < s.total && s.total <= s.n_blocks * int64_t{config_.block_size} + 1,
            "a sequence's blocks hold all its tokens but the newest");
    for (int32_t i = 0; i < s.n_blocks; ++i) count(holders, blocks_of(seat)[i]);
    last = &r;
  }
  for (int32_t block = 0; block < config_.num_blocks; ++block) {
    const int32_t held = holders[static_cast<size_t>(block)];
    require(free[static_cast<size_t>(block)] == (held == 0), "a block is either free, once, or held");
    require(prefixes_ ? held == prefixes_->holders(block) : held <= 1, "a block's holders are counted");
  }
  if (prefixes_) check_prefixes();
  require(order_.size() + free_seats_.size() == static_cast<size_t>(config_.max_num_seqs), "seats add up");
}

// Of each sequence the first blocks are entered: full, computed, and found under what its tokens say.
void Scheduler::check_prefixes() const {
  std::vector<uint8_t> met(static_cast<size_t>(config_.num_blocks));
  for (const int32_t seat : order_) {
    const Seat& s = seat_at(seat);
    const int32_t* blocks = blocks_of(seat);
    const int32_t n = entered_[static_cast<size_t>(seat)].n, size = config_.block_size;
    require(prefixes_->holders(blocks[s.n_blocks - 1]) == 1, "the last block is a sequence's own");
    for (int32_t i = 0; fills_ && i < s.n_blocks; ++i) {
      require(prefixes_->entered(blocks[i]) == (i < n), "of each sequence, the first blocks are entered");
      require(i < n || prefixes_->holders(blocks[i]) == 1, "only what is entered is shared");
      if (i >= n) continue;
      require((i + 1) * int64_t{size} <= s.computed, "what is entered is computed");
      const int32_t before = i > 0 ? blocks[i - 1] : kNone;
      require(prefixes_->find(before, s.text + int64_t{i} * size) == blocks[i], "an entry is what its holders hold");
      met[static_cast<size_t>(blocks[i])] = 1;
    }
  }
  for (int32_t block = 0; block < config_.num_blocks; ++block)
    require(prefixes_->entered(block) == (met[static_cast<size_t>(block)] != 0), "what is entered is held");
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
