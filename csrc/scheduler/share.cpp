// Sequences that begin alike hold the same KV blocks: what of that the scheduler decides. prefixes.h has the blocks.
#include <algorithm>

#include "scheduler/log.h"
#include "scheduler/scheduler.h"

namespace ww {

// Holds the longest known prefix of a request, before any victim goes: a victim may be the only one that holds it. At
// least one token is left to compute, so that the last block is the request's own.
void Scheduler::pin_prefix(const Request& r) {
  const int32_t size = config_.block_size, most = (r.n_tokens - 1) / size;
  shared_.clear();
  if (fills_) {
    for (int32_t before = kNone, n = 0; n < most; shared_.push_back(before), ++n) {
      before = prefixes_->find(before, r.tokens.data() + int64_t{n} * size);
      if (before == kNone) break;
    }
  } else if (const Request* donor = donor_for(r)) {
    shared_.assign(blocks_of(donor->seat), blocks_of(donor->seat) + offers_[next_offer_].n_blocks);
  }
  prefixes_->hold(shared_.data(), n_shared());
}

void Scheduler::unpin_prefix() {
  for (const int32_t block : shared_) prefixes_->release(block);
  shared_.clear();
}

// It has its seat: the prefix is computed, the other blocks are its own.
void Scheduler::share_prefix(Request& r) {
  Seat& s = seat_at(r.seat);
  const int32_t n = n_shared();
  if (n > 0 && !fills_) ++next_offer_;
  s.computed = n * config_.block_size;
  prefixes_->hold(blocks_of(r.seat) + n, s.n_blocks - n);
  r.n_prompt_done = std::max(r.n_prompt_done, std::min(s.computed, r.n_prompt));  // not computed for it, so not charged
  counters_.prefix_shared_tokens += s.computed;
  entered_[static_cast<size_t>(r.seat)] = {n, (n + int64_t{1}) * config_.block_size};
  shared_.clear();
}

// Blocks that the step has filled. Where another had entered the content first, it may have left by the next time.
void Scheduler::enter_full_blocks() {
  const int32_t size = config_.block_size;
  for (const int32_t seat : rows_) {
    const Seat& s = seat_at(seat);
    Entered& e = entered_[static_cast<size_t>(seat)];
    if (s.computed < e.look_at || s.ended) continue;
    const int32_t* blocks = blocks_of(seat);
    const int32_t full = s.computed / size;
    while (e.n < full && prefixes_->enter(e.n > 0 ? blocks[e.n - 1] : kNone, s.text + int64_t{e.n} * size, blocks[e.n]))
      ++e.n;
    e.look_at = (full + int64_t{1}) * size;
  }
}

// ---- Without contents --------------------------------------------------------------------------------------------

// A replay is told who shared: the first of the running that holds the last shared block, and so all before it.
void Scheduler::log_share(const Request& r) {
  const auto holds = [&](int32_t seat) {
    return seat_at(seat).n_blocks >= n_shared() && blocks_of(seat)[n_shared() - 1] == shared_.back();
  };
  log_->share({r.id, seat_at(*std::find_if(order_.begin(), order_.end(), holds)).id, n_shared()});
}

bool Scheduler::take_back_offers() {
  const bool left = next_offer_ < offers_.size();
  offers_.clear();
  next_offer_ = 0;
  return left;
}

const Scheduler::Request* Scheduler::donor_for(const Request& r) const {
  if (next_offer_ == offers_.size() || offers_[next_offer_].id != r.id) return nullptr;
  const PrefixShare& offer = offers_[next_offer_];
  const Request* donor = live_.find(offer.donor);
  const int64_t tokens = int64_t{offer.n_blocks} * config_.block_size;
  const bool can_be = donor && donor->seat != kNone && tokens > 0 && tokens < r.n_tokens &&
                      tokens <= seat_at(donor->seat).computed;
  return can_be ? donor : nullptr;
}

}  // namespace ww
