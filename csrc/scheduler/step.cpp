// Who runs in the next step, and the batch that says so.
#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "scheduler/log.h"
#include "scheduler/scheduler.h"
#include "scheduler/words.h"

namespace ww {
namespace {

bool plain_greedy(const ww_sampling& s) { return s.temperature == 0 && s.repetition_penalty == 1; }

}  // namespace

const ww_batch* Scheduler::schedule(int64_t now_ns) {
  if (in_flight()) throw std::logic_error("schedule() while a batch is in flight: complete() or fail() it first.");
  expire(now_ns);
  if (!has_work() || (may_hold() && now_ns < delay_end_ns())) return nullptr;
  release_ = reason();
  grow_decodes();
  admit_waiting();
  add_rows();
  batch_.n_seqs = static_cast<int32_t>(rows_.size());
  batch_.max_blocks = max_blocks_;
  batch_.tokens = tokens_.data();
  batch_.q_start = q_start_.data();
  batch_.ctx_len = ctx_len_.data();
  batch_.block_table = table_.data();
  batch_.slot_map = slot_map_.data();
  batch_.want_logits = want_.data();
  batch_.sampling = nullptr;
  for (size_t row = 0; sampled_ > 0 && row < rows_.size(); ++row) {
    sampling_[row] = seat_sampling_[static_cast<size_t>(rows_[row])];
    if (!plain_greedy(sampling_[row])) batch_.sampling = sampling_.data();
  }
  ++counters_.steps;
  ++counters_.releases[static_cast<int>(release_)];
  decide(kSaysReleased | static_cast<uint64_t>(release_));
  scheduled_ns_ = now_ns;
  if (log_) log_->schedule(now_ns, hash_);
  return &batch_;
}

// ---- When --------------------------------------------------------------------------------------------------------

bool Scheduler::may_hold() const {
  return config_.max_queue_delay_us > 0 && order_.empty() && !draining_ && queue_.size() > 0 &&
         queue_.size() < config_.max_num_seqs;
}

int64_t Scheduler::delay_end_ns() const {
  return static_cast<const Request*>(queue_.oldest())->submitted_ns + config_.max_queue_delay_us * 1000;
}

Release Scheduler::reason() const {
  if (!order_.empty()) return Release::running;
  if (config_.max_queue_delay_us == 0) return Release::no_delay;
  if (draining_) return Release::draining;
  return queue_.size() >= config_.max_num_seqs ? Release::full : Release::delay;
}

// ---- Who ---------------------------------------------------------------------------------------------------------

bool Scheduler::runs_before(const Request& a, const Request& b) const {
  const bool aged_a = queue_.aged(a), aged_b = queue_.aged(b);
  if (aged_a != aged_b) return aged_a;
  if (a.priority != b.priority) return a.priority > b.priority;
  return a.id < b.id;
}

void Scheduler::grow_decodes() {
  claimed_ = 0;
  for (size_t i = 0; i < order_.size(); ++i) {  // order_ may lose its tail meanwhile
    const Seat& s = seat_at(order_[i]);
    const int32_t n = s.total - s.computed;
    const bool fits = s.n_blocks * int64_t{config_.block_size} >= s.total;  // as a prefill does
    if (fits || grow(order_[i])) claimed_ += n;
  }
}

bool Scheduler::grow(int32_t seat) {
  if (free_blocks_.empty()) {
    const bool itself = order_.back() == seat;
    preempt_last();
    if (itself) return false;
  }
  Seat& s = seat_at(seat);
  s.last_block = free_blocks_.back();
  blocks_of(seat)[s.n_blocks++] = s.last_block;
  free_blocks_.pop_back();
  if (prefixes_) prefixes_->hold(&s.last_block, 1);
  return true;
}

void Scheduler::preempt_last() {
  const int32_t seat = order_.back();
  order_.pop_back();
  leave_seat(seat);
  enqueue(at(seat));
  ++counters_.preemptions;
  decide(kSaysPreempted | seat_at(seat).id);
}

void Scheduler::admit_waiting() {
  while (queue_.size() > 0) {
    const bool no_room = free_seats_.empty() || claimed_ >= config_.max_num_batched_tokens;
    if (no_room && !displaceable(order_.back(), queue_.head_priority())) return;
    Request& r = *static_cast<Request*>(queue_.head());
    if (prefixes_) pin_prefix(r);
    int32_t victims = victims_for(r);
    if (victims == kNone) return unpin_prefix();
    if (log_ && n_shared() > 0) log_share(r);
    for (; victims > 0; --victims) {
      claimed_ -= todo(order_.back());
      preempt_last();
    }
    waiting_tokens_ -= r.n_tokens;
    queue_.admit(r);
    take_seat(r);
    claimed_ += todo(r.seat);
  }
}

// A head that comes before running prefills takes budget from them without displacing them.
int32_t Scheduler::victims_for(const Request& r) const {
  int64_t claimed = claimed_;
  for (size_t i = order_.size(); claimed >= config_.max_num_batched_tokens && i-- > 0;) {
    if (!displaceable(order_[i], r.priority)) break;
    if (todo(order_[i]) > 1) claimed -= todo(order_[i]);
  }
  const int32_t needed = blocks_for(r.n_tokens) - n_shared();
  auto blocks = static_cast<int64_t>(free_blocks_.size()), seats = static_cast<int64_t>(free_seats_.size());
  size_t i = order_.size();
  bool enough = true;
  while (claimed >= config_.max_num_batched_tokens || seats < 1 || blocks < needed) {
    enough = i > 0 && displaceable(order_[i - 1], r.priority);
    if (!enough) break;
    const int32_t seat = order_[--i], n = seat_at(seat).n_blocks;
    ++seats;
    blocks += prefixes_ ? prefixes_->suppose_released(blocks_of(seat), n) : n;
    if (todo(seat) == 1) --claimed;
  }
  const size_t n = order_.size() - i;
  for (; prefixes_ && i < order_.size(); ++i) prefixes_->hold(blocks_of(order_[i]), seat_at(order_[i]).n_blocks);
  return enough ? static_cast<int32_t>(n) : kNone;
}

// ---- Seats and blocks --------------------------------------------------------------------------------------------

void Scheduler::take_seat(Request& r) {
  r.seat = free_seats_.back();
  free_seats_.pop_back();
  Seat& s = seat_at(r.seat);
  s.id = r.id;
  request_[static_cast<size_t>(r.seat)] = &r;
  s.charge = &r.tenant->counter;
  s.n_prompt = r.n_prompt;
  seat_sampling_[static_cast<size_t>(r.seat)] = r.params.sampling;
  s.computed = 0;
  s.total = r.n_tokens;
  s.left = r.n_prompt + r.params.max_tokens - s.total;
  if (fills_) {
    r.tokens.resize(static_cast<size_t>(r.n_prompt) + static_cast<size_t>(r.params.max_tokens));
    s.text = r.tokens.data();
    s.last_token = s.text[s.total - 1];
  }
  s.stop = r.params.stop_token_id;
  s.ended = false;
  ++s.tenancy;
  sampled_ += !plain_greedy(r.params.sampling);
  s.n_blocks = blocks_for(s.total);
  const auto taken = free_blocks_.end() - (s.n_blocks - n_shared());
  std::reverse_copy(taken, free_blocks_.end(), std::copy(shared_.begin(), shared_.end(), blocks_of(r.seat)));
  s.last_block = *taken;
  free_blocks_.erase(taken, free_blocks_.end());
  if (prefixes_) share_prefix(r);
  const auto place = std::upper_bound(order_.begin(), order_.end(), r,
                                      [&](const Request& a, int32_t seat) { return runs_before(a, at(seat)); });
  order_.insert(place, r.seat);
}

void Scheduler::leave_seat(int32_t seat) {
  Seat& s = seat_at(seat);
  Request& r = at(seat);
  sampled_ -= !plain_greedy(r.params.sampling);
  const int32_t* blocks = blocks_of(seat);
  const auto last_first = std::make_reverse_iterator(blocks + s.n_blocks), end = std::make_reverse_iterator(blocks);
  if (prefixes_)
    std::copy_if(last_first, end, std::back_inserter(free_blocks_), [&](int32_t b) { return prefixes_->release(b); });
  else
    free_blocks_.insert(free_blocks_.end(), last_first, end);
  s.n_blocks = 0;
  free_seats_.push_back(seat);
  r.n_tokens = s.total;
  if (fills_) r.tokens.resize(static_cast<size_t>(s.total));
  r.seat = kNone;
}

void Scheduler::retire(int32_t seat) {
  leave_seat(seat);
  free_request(at(seat));
}

// ---- The batch ---------------------------------------------------------------------------------------------------

void Scheduler::add_rows() {
  batch_.n_tokens = 0;
  bool prefills = false;
  for (const int32_t seat : order_) {
    if (todo(seat) > 1) prefills = true;
    else add_decode(seat);
  }
  int32_t budget = config_.max_num_batched_tokens - batch_.n_tokens;
  for (size_t i = 0; prefills && budget > 0 && i < order_.size(); ++i) {
    const int32_t n = std::min(todo(order_[i]), budget);
    if (todo(order_[i]) < 2) continue;
    add_prefill(order_[i], n);
    budget -= n;
  }
}

size_t Scheduler::open_row(int32_t seat, int32_t n) {
  Seat& s = seat_at(seat);
  const size_t row = rows_.size();
  rows_.push_back(seat);
  q_start_[row] = batch_.n_tokens;
  q_start_[row + 1] = batch_.n_tokens += n;
  ctx_len_[row] = s.computed;
  want_[row] = s.computed + n == s.total;
  if (fills_) fill_blocks(row, seat);
  decide(s.id * kRowFactor ^ (static_cast<uint64_t>(n) << 32 | static_cast<uint64_t>(s.computed)));
  return static_cast<size_t>(q_start_[row]);
}

// The one token of a decode goes into the sequence's last block.
void Scheduler::add_decode(int32_t seat) {
  Seat& s = seat_at(seat);
  const size_t at = open_row(seat, 1);
  tokens_[at] = s.last_token;
  slot_map_[at] = s.last_block * config_.block_size + s.computed - (s.n_blocks - 1) * config_.block_size;
}

void Scheduler::add_prefill(int32_t seat, int32_t n) {
  Seat& s = seat_at(seat);
  const size_t at = open_row(seat, n);
  if (!fills_) return;
  const int32_t* blocks = blocks_of(seat);
  std::copy_n(s.text + s.computed, n, tokens_.begin() + static_cast<std::ptrdiff_t>(at));
  int32_t* slots = &slot_map_[at];
  const int32_t size = config_.block_size, end = s.computed + n;
  for (int32_t position = s.computed; position < end;) {  // a block at a time
    const int32_t offset = position % size, run = std::min(size - offset, end - position);
    const int32_t first = blocks[position / size] * size + offset;
    for (int32_t i = 0; i < run; ++i) *slots++ = first + i;
    position += run;
  }
}

void Scheduler::fill_blocks(size_t row, int32_t seat) {
  const auto columns = static_cast<size_t>(max_blocks_);
  const Seat& s = seat_at(seat);
  Row& state = table_state_[row];
  const bool same = state.seat == seat && state.tenancy == s.tenancy;
  const int32_t n = s.n_blocks;
  if (same && state.n_blocks == n) return;
  int32_t* out = &table_[row * columns];
  const int32_t* blocks = blocks_of(seat);
  for (int32_t i = same ? state.n_blocks : 0; i < n; ++i) out[i] = blocks[i];
  for (int32_t i = n; i < state.n_blocks; ++i) out[i] = -1;
  state = {seat, s.tenancy, n};
}

// ---- What came of it ---------------------------------------------------------------------------------------------

void Scheduler::complete(int64_t now_ns, const int32_t* next_token) {
  if (!in_flight()) throw std::logic_error("complete() without a batch in flight: schedule() one first.");
  if (log_) log_complete(now_ns, next_token);
  for (size_t row = 0; row < rows_.size(); ++row) {
    const int32_t seat = rows_[row];
    Seat& s = seat_at(seat);
    if (s.ended) continue;
    const int32_t from = s.computed;
    s.computed += q_start_[row + 1] - q_start_[row];
    if (from < s.n_prompt) count_prompt(seat);
    if (want_[row]) accept(seat, next_token[row], now_ns);
  }
  cost_.observe(batch_.n_tokens, batch_.n_seqs, now_ns - scheduled_ns_);
  if (prefixes_ && fills_) enter_full_blocks();
  close_batch();
}

// Of the tokens, only what decides something.
void Scheduler::log_complete(int64_t now_ns, const int32_t* next_token) {
  std::vector<uint64_t> exceptions;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const Seat& s = seat_at(rows_[row]);
    const int32_t token = next_token[row];
    if (!s.ended && want_[row] && (token < 0 || token == s.stop)) exceptions.push_back(row << 1 | (token >= 0));
  }
  log_->complete(now_ns, exceptions);
}

void Scheduler::fail(int64_t now_ns, const std::string& message) {
  if (!in_flight()) throw std::logic_error("fail() without a batch in flight: schedule() one first.");
  if (log_) log_->fail(now_ns);
  for (const int32_t seat : rows_) {
    Seat& s = seat_at(seat);
    if (s.ended) continue;
    end(at(seat), Outcome::failed, now_ns, message);
    s.ended = true;
  }
  close_batch();
}

void Scheduler::accept(int32_t seat, int32_t token, int64_t now_ns) {
  Seat& s = seat_at(seat);
  if (token < 0) {
    end(at(seat), Outcome::failed, now_ns, "the engine gave no token where one was wanted");
    s.ended = true;
    return;
  }
  if (s.total == s.n_prompt) at(seat).first_token_ns = now_ns;
  if (fills_) s.text[s.total] = s.last_token = token;
  ++s.total;
  ++counters_.output_tokens;
  *s.charge += kOutputTokenCharge;
  events_.tokens.push_back({s.id, now_ns, token});
  if (--s.left == 0 || token == s.stop) {
    end(at(seat), Outcome::finished, now_ns);
    s.ended = true;
  }
}

void Scheduler::count_prompt(int32_t seat) {
  Seat& s = seat_at(seat);
  Request& r = at(seat);
  const int32_t done = std::min(s.computed, r.n_prompt);
  const int32_t fresh = std::max(done - r.n_prompt_done, 0);
  counters_.prompt_tokens += fresh;
  *s.charge += fresh * kPromptTokenCharge;
  r.n_prompt_done += fresh;
}

// Those that ended leave their seats, in the order of the rows.
void Scheduler::close_batch() {
  bool any = false;
  for (const int32_t seat : rows_) any |= seat_at(seat).ended;
  if (any) {
    std::erase_if(order_, [&](int32_t seat) { return seat_at(seat).ended; });
    for (const int32_t seat : rows_)
      if (seat_at(seat).ended) retire(seat);
  }
  rows_.clear();
}

}  // namespace ww
