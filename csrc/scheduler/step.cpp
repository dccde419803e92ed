// Who runs in the next step, and the batch that says so.
#include <algorithm>
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
    const int32_t n = todo(order_[i]);
    if (n > 1 || grow(order_[i])) claimed_ += n;
  }
}

bool Scheduler::grow(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  if (n_blocks_[s] * int64_t{config_.block_size} >= total_[s]) return true;
  if (free_blocks_.empty()) {
    const bool itself = order_.back() == seat;
    preempt_last();
    if (itself) return false;
  }
  last_block_[s] = free_blocks_.back();
  blocks_[s * static_cast<size_t>(max_blocks_) + static_cast<size_t>(n_blocks_[s]++)] = last_block_[s];
  free_blocks_.pop_back();
  return true;
}

void Scheduler::preempt_last() {
  const int32_t seat = order_.back();
  order_.pop_back();
  leave_seat(seat);
  enqueue(at(seat));
  ++counters_.preemptions;
  decide(kSaysPreempted | id_[static_cast<size_t>(seat)]);
}

void Scheduler::admit_waiting() {
  while (queue_.size() > 0) {
    if (free_seats_.empty() && !displaceable(order_.back(), queue_.head_priority())) return;
    Request& r = *static_cast<Request*>(queue_.head());
    int32_t victims = victims_for(r);
    if (victims == kNone) return;
    for (; victims > 0; --victims) {
      claimed_ -= todo(order_.back());
      preempt_last();
    }
    waiting_tokens_ -= static_cast<int64_t>(r.tokens.size());
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
  const auto needed = blocks_for(static_cast<int64_t>(r.tokens.size()));
  auto blocks = static_cast<int64_t>(free_blocks_.size()), seats = static_cast<int64_t>(free_seats_.size());
  int32_t n = 0;
  for (size_t i = order_.size(); claimed >= config_.max_num_batched_tokens || seats < 1 || blocks < needed; ++n) {
    if (i-- == 0 || !displaceable(order_[i], r.priority)) return kNone;
    ++seats;
    blocks += n_blocks_[static_cast<size_t>(order_[i])];
    if (todo(order_[i]) == 1) --claimed;
  }
  return n;
}

// ---- Seats and blocks --------------------------------------------------------------------------------------------

void Scheduler::take_seat(Request& r) {
  const int32_t total = length(r);
  r.tokens.resize(static_cast<size_t>(r.n_prompt) + static_cast<size_t>(r.params.max_tokens));
  r.seat = free_seats_.back();
  free_seats_.pop_back();
  const auto s = static_cast<size_t>(r.seat);
  id_[s] = r.id;
  request_[s] = &r;
  charge_[s] = &r.tenant->counter;
  n_prompt_[s] = r.n_prompt;
  seat_sampling_[s] = r.params.sampling;
  computed_[s] = 0;
  total_[s] = total;
  left_[s] = r.n_prompt + r.params.max_tokens - total;
  text_[s] = r.tokens.data();
  last_token_[s] = text_[s][total - 1];
  stop_[s] = r.params.stop_token_id;
  ended_[s] = 0;
  ++tenancy_[s];
  sampled_ += !plain_greedy(r.params.sampling);
  n_blocks_[s] = blocks_for(total_[s]);
  int32_t* blocks = &blocks_[s * static_cast<size_t>(max_blocks_)];
  for (int32_t i = 0; i < n_blocks_[s]; ++i) {
    blocks[i] = last_block_[s] = free_blocks_.back();
    free_blocks_.pop_back();
  }
  const auto place = std::upper_bound(order_.begin(), order_.end(), r,
                                      [&](const Request& a, int32_t seat) { return runs_before(a, at(seat)); });
  order_.insert(place, r.seat);
}

void Scheduler::leave_seat(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  Request& r = at(seat);
  sampled_ -= !plain_greedy(r.params.sampling);
  const int32_t* blocks = &blocks_[s * static_cast<size_t>(max_blocks_)];
  for (int32_t i = n_blocks_[s]; i-- > 0;) free_blocks_.push_back(blocks[i]);
  n_blocks_[s] = 0;
  free_seats_.push_back(seat);
  r.tokens.resize(static_cast<size_t>(total_[s]));
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
  const auto s = static_cast<size_t>(seat);
  const size_t row = rows_.size();
  rows_.push_back(seat);
  q_start_[row] = batch_.n_tokens;
  q_start_[row + 1] = batch_.n_tokens += n;
  ctx_len_[row] = computed_[s];
  want_[row] = computed_[s] + n == total_[s];
  fill_blocks(row, seat);
  decide(id_[s] * kRowFactor ^ (static_cast<uint64_t>(n) << 32 | static_cast<uint64_t>(computed_[s])));
  return static_cast<size_t>(q_start_[row]);
}

// The one token of a decode goes into the sequence's last block.
void Scheduler::add_decode(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  const size_t at = open_row(seat, 1);
  tokens_[at] = last_token_[s];
  slot_map_[at] = last_block_[s] * config_.block_size + computed_[s] - (n_blocks_[s] - 1) * config_.block_size;
}

void Scheduler::add_prefill(int32_t seat, int32_t n) {
  const auto s = static_cast<size_t>(seat);
  const size_t at = open_row(seat, n);
  const int32_t* blocks = &blocks_[s * static_cast<size_t>(max_blocks_)];
  std::copy_n(text_[s] + computed_[s], n, tokens_.begin() + static_cast<std::ptrdiff_t>(at));
  for (int32_t i = 0; i < n; ++i) {
    const int32_t position = computed_[s] + i;
    slot_map_[at + static_cast<size_t>(i)] =
        blocks[position / config_.block_size] * config_.block_size + position % config_.block_size;
  }
}

void Scheduler::fill_blocks(size_t row, int32_t seat) {
  const auto s = static_cast<size_t>(seat), columns = static_cast<size_t>(max_blocks_);
  Row& state = table_state_[row];
  const bool same = state.seat == seat && state.tenancy == tenancy_[s];
  const int32_t n = n_blocks_[s];
  if (same && state.n_blocks == n) return;
  int32_t* out = &table_[row * columns];
  const int32_t* blocks = &blocks_[s * columns];
  for (int32_t i = same ? state.n_blocks : 0; i < n; ++i) out[i] = blocks[i];
  for (int32_t i = n; i < state.n_blocks; ++i) out[i] = -1;
  state = {seat, tenancy_[s], n};
}

// ---- What came of it ---------------------------------------------------------------------------------------------

void Scheduler::complete(int64_t now_ns, const int32_t* next_token) {
  if (!in_flight()) throw std::logic_error("complete() without a batch in flight: schedule() one first.");
  if (log_) log_complete(now_ns, next_token);
  for (size_t row = 0; row < rows_.size(); ++row) {
    const int32_t seat = rows_[row];
    const auto s = static_cast<size_t>(seat);
    if (ended_[s]) continue;
    const int32_t from = computed_[s];
    computed_[s] += q_start_[row + 1] - q_start_[row];
    if (from < n_prompt_[s]) count_prompt(seat);
    if (want_[row]) accept(seat, next_token[row], now_ns);
  }
  cost_.observe(batch_.n_tokens, batch_.n_seqs, now_ns - scheduled_ns_);
  close_batch();
}

// Of the tokens, only what decides something.
void Scheduler::log_complete(int64_t now_ns, const int32_t* next_token) {
  std::vector<uint64_t> exceptions;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const auto s = static_cast<size_t>(rows_[row]);
    if (ended_[s] || !want_[row]) continue;
    const bool stops = next_token[row] == stop_[s];
    if (next_token[row] < 0 || stops) exceptions.push_back(row << 1 | (next_token[row] >= 0));
  }
  log_->complete(now_ns, exceptions);
}

void Scheduler::fail(int64_t now_ns, const std::string& message) {
  if (!in_flight()) throw std::logic_error("fail() without a batch in flight: schedule() one first.");
  if (log_) log_->fail(now_ns);
  for (const int32_t seat : rows_) {
    const auto s = static_cast<size_t>(seat);
    if (ended_[s]) continue;
    end(at(seat), Outcome::failed, now_ns, message);
    ended_[s] = 1;
  }
  close_batch();
}

void Scheduler::accept(int32_t seat, int32_t token, int64_t now_ns) {
  const auto s = static_cast<size_t>(seat);
  if (token < 0) {
    end(at(seat), Outcome::failed, now_ns, "the engine gave no token where one was wanted");
    ended_[s] = 1;
    return;
  }
  if (total_[s] == n_prompt_[s]) at(seat).first_token_ns = now_ns;
  text_[s][total_[s]++] = token;
  last_token_[s] = token;
  ++counters_.output_tokens;
  *charge_[s] += kOutputTokenCharge;
  events_.tokens.push_back({id_[s], now_ns, token});
  if (--left_[s] == 0 || token == stop_[s]) {
    end(at(seat), Outcome::finished, now_ns);
    ended_[s] = 1;
  }
}

void Scheduler::count_prompt(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  Request& r = at(seat);
  const int32_t done = std::min(computed_[s], r.n_prompt);
  const int32_t fresh = std::max(done - r.n_prompt_done, 0);
  counters_.prompt_tokens += fresh;
  *charge_[s] += fresh * kPromptTokenCharge;
  r.n_prompt_done += fresh;
}

// Those that ended leave their seats, in the order of the rows.
void Scheduler::close_batch() {
  bool any = false;
  for (const int32_t seat : rows_) any |= ended_[static_cast<size_t>(seat)] != 0;
  if (any) {
    std::erase_if(order_, [&](int32_t seat) { return ended_[static_cast<size_t>(seat)] != 0; });
    for (const int32_t seat : rows_)
      if (ended_[static_cast<size_t>(seat)]) retire(seat);
  }
  rows_.clear();
}

}  // namespace ww
