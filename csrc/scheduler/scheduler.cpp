#include "scheduler/scheduler.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace ww {
namespace {

// What a word of the decision hash is about: the top byte.
constexpr uint64_t kSaysAdmitted = uint64_t{1} << 56, kSaysRejected = uint64_t{2} << 56;
constexpr uint64_t kSaysPreempted = uint64_t{3} << 56, kSaysEnded = uint64_t{4} << 56;
constexpr uint64_t kRowFactor = 0xC2B2AE3D27D4EB4Fu;

bool plain_greedy(const ww_sampling& s) { return s.temperature == 0 && s.repetition_penalty == 1; }

void require(bool condition, const char* invariant) {
  if (!condition) throw std::logic_error(std::string("scheduler invariant broken: ") + invariant);
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config) : config_(config) {
  const auto& c = config_;
  if (c.max_num_seqs < 1 || c.max_num_batched_tokens < c.max_num_seqs || c.max_num_queued_reqs < 1 ||
      c.max_num_queued_tokens < 1 || c.block_size < 1 || c.num_blocks < 1 || c.max_model_len < 1 ||
      int64_t{c.num_blocks} * c.block_size > std::numeric_limits<int32_t>::max())
    throw std::invalid_argument(
        "every field of a scheduler's config must be at least 1, max_num_batched_tokens at least max_num_seqs, and "
        "num_blocks * block_size below 2^31.");
  max_blocks_ = blocks_for(c.max_model_len);
  const auto seats = static_cast<size_t>(c.max_num_seqs);
  const auto budget = static_cast<size_t>(c.max_num_batched_tokens);
  for (auto* array : {&entry_, &computed_, &total_, &left_, &last_token_, &stop_, &n_prompt_, &n_blocks_, &last_block_}) array->resize(seats);
  ended_.resize(seats);
  tenancy_.resize(seats);
  blocks_.resize(seats * static_cast<size_t>(max_blocks_));
  table_.resize(seats * static_cast<size_t>(max_blocks_), -1);
  table_state_.resize(seats, Row{kNone, 0, 0});
  tokens_.resize(budget);
  slot_map_.resize(budget);
  q_start_.resize(seats + 1);
  ctx_len_.resize(seats);
  want_.resize(seats);
  sampling_.resize(seats);
  seat_sampling_.resize(seats);
  id_.resize(seats);
  text_.resize(seats);
  // Never more are live than may wait and run; a bound beyond all measure is not reserved for.
  requests_.reserve(std::min(seats + static_cast<size_t>(c.max_num_queued_reqs), size_t{1} << 20));
  rows_.reserve(seats);
  order_.reserve(seats);
  for (int32_t i = c.max_num_seqs; i-- > 0;) free_seats_.push_back(i);
  for (int32_t i = c.num_blocks; i-- > 0;) free_blocks_.push_back(i);
}

// ---- Requests come and go ----------------------------------------------------------------------------------------

int64_t Scheduler::admission(int32_t n, const RequestParams& params) const {
  if (n < 1 || params.max_tokens < 1) return kRejectInvalid;
  const int64_t positions = int64_t{n} + params.max_tokens;
  // The last token of an output is never fed back: it needs no KV.
  if (positions > config_.max_model_len || blocks_for(positions - 1) > config_.num_blocks ||
      n > config_.max_num_queued_tokens)
    return kRejectTooLarge;
  if (draining_) return kRejectDraining;
  if (waiting_count_ >= config_.max_num_queued_reqs || waiting_tokens_ + n > config_.max_num_queued_tokens)
    return kRejectQueueFull;
  return 0;
}

int64_t Scheduler::submit(int64_t now_ns, const int32_t* tokens, int32_t n, const RequestParams& params) {
  if (const int64_t code = admission(n, params); code != 0) {
    ++counters_.outcomes[static_cast<int>(Outcome::rejected)];
    decide(kSaysRejected | static_cast<uint64_t>(-code));
    return code;
  }
  const int32_t entry = new_entry();
  Request& r = requests_[static_cast<size_t>(entry)];
  r.id = ++last_id_;
  r.tokens.assign(tokens, tokens + n);
  r.params = params;
  r.n_prompt = n;
  r.submitted_ns = now_ns;
  entry_of_.emplace(r.id, entry);
  enqueue(entry);
  decide(kSaysAdmitted | r.id);
  return static_cast<int64_t>(r.id);
}

bool Scheduler::cancel(int64_t now_ns, uint64_t id) {
  const auto found = entry_of_.find(id);
  if (found == entry_of_.end()) return false;
  const int32_t entry = found->second;
  const int32_t seat = requests_[static_cast<size_t>(entry)].seat;
  if (seat == kNone) dequeue(entry);
  end(entry, Outcome::cancelled, now_ns);
  if (seat == kNone) {
    free_entry(entry);
  } else if (std::find(rows_.begin(), rows_.end(), seat) != rows_.end()) {
    ended_[static_cast<size_t>(seat)] = 1;
  } else {
    order_.erase(std::find(order_.begin(), order_.end(), seat));
    retire(seat);
  }
  return true;
}

void Scheduler::cancel_all(int64_t now_ns) {
  std::vector<uint64_t> ids;
  for (const auto& [id, entry] : entry_of_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const uint64_t id : ids) cancel(now_ns, id);
}

int32_t Scheduler::new_entry() {
  if (free_entries_.empty()) {
    requests_.emplace_back();
    return static_cast<int32_t>(requests_.size() - 1);
  }
  const int32_t entry = free_entries_.back();
  free_entries_.pop_back();
  return entry;
}

void Scheduler::free_entry(int32_t entry) {
  requests_[static_cast<size_t>(entry)] = Request{};
  free_entries_.push_back(entry);
}

// Inserts in order. The walk starts at the tail, where a new arrival belongs, unless the request goes before the head,
// as a preempted one does.
void Scheduler::enqueue(int32_t entry) {
  const auto at = [&](int32_t i) -> Request& { return requests_[static_cast<size_t>(i)]; };
  Request& r = at(entry);
  int32_t after = waiting_tail_;
  if (waiting_head_ != kNone && before(r, at(waiting_head_))) after = kNone;
  while (after != kNone && before(r, at(after))) after = at(after).prev;
  r.prev = after;
  r.next = after == kNone ? waiting_head_ : at(after).next;
  (r.prev == kNone ? waiting_head_ : at(r.prev).next) = entry;
  (r.next == kNone ? waiting_tail_ : at(r.next).prev) = entry;
  ++waiting_count_;
  waiting_tokens_ += static_cast<int64_t>(r.tokens.size());
}

void Scheduler::dequeue(int32_t entry) {
  const auto at = [&](int32_t i) -> Request& { return requests_[static_cast<size_t>(i)]; };
  Request& r = at(entry);
  (r.prev == kNone ? waiting_head_ : at(r.prev).next) = r.next;
  (r.next == kNone ? waiting_tail_ : at(r.next).prev) = r.prev;
  r.prev = r.next = kNone;
  --waiting_count_;
  waiting_tokens_ -= static_cast<int64_t>(r.tokens.size());
}

void Scheduler::end(int32_t entry, Outcome outcome, int64_t now_ns, const std::string& message) {
  const Request& r = requests_[static_cast<size_t>(entry)];
  const int32_t n_output = length(r) - r.n_prompt;
  events_.ends.push_back({r.id, outcome, r.n_prompt, n_output, r.submitted_ns, r.first_token_ns, now_ns, message});
  ++counters_.outcomes[static_cast<int>(outcome)];
  decide(kSaysEnded | r.id << 3 | static_cast<uint64_t>(outcome));
  entry_of_.erase(r.id);
}

// ---- Seats and blocks --------------------------------------------------------------------------------------------

void Scheduler::take_seat(int32_t entry) {
  Request& r = requests_[static_cast<size_t>(entry)];
  const int32_t total = length(r);
  r.tokens.resize(static_cast<size_t>(r.n_prompt) + static_cast<size_t>(r.params.max_tokens));
  r.seat = free_seats_.back();
  free_seats_.pop_back();
  const auto s = static_cast<size_t>(r.seat);
  id_[s] = r.id;
  entry_[s] = entry;
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
  const auto place = std::upper_bound(order_.begin(), order_.end(), r, [&](const Request& a, int32_t seat) {
    return before(a, requests_[static_cast<size_t>(entry_[static_cast<size_t>(seat)])]);
  });
  order_.insert(place, r.seat);
}

void Scheduler::leave_seat(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  Request& r = requests_[static_cast<size_t>(entry_[s])];
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
  free_entry(entry_[static_cast<size_t>(seat)]);
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

// The victim comes last in the order, so it is not in the batch yet: decodes are taken in order, prefills after them.
void Scheduler::preempt_last() {
  const int32_t seat = order_.back();
  const int32_t entry = entry_[static_cast<size_t>(seat)];
  order_.pop_back();
  leave_seat(seat);
  enqueue(entry);
  ++counters_.preemptions;
  decide(kSaysPreempted | requests_[static_cast<size_t>(entry)].id);
}

// ---- A step ------------------------------------------------------------------------------------------------------

const ww_batch* Scheduler::schedule(int64_t) {
  if (in_flight()) throw std::logic_error("schedule() while a batch is in flight: complete() or fail() it first.");
  batch_.n_tokens = 0;
  int32_t budget = config_.max_num_batched_tokens;
  bool prefills = false;
  for (size_t i = 0; i < order_.size(); ++i) {  // order_ may lose its tail meanwhile
    const int32_t seat = order_[i];
    if (total_[static_cast<size_t>(seat)] - computed_[static_cast<size_t>(seat)] > 1) {
      prefills = true;
    } else if (grow(seat)) {
      add_decode(seat);
      --budget;
    }
  }
  for (size_t i = 0; prefills && budget > 0 && i < order_.size(); ++i) {
    const int32_t seat = order_[i];
    const int32_t todo = total_[static_cast<size_t>(seat)] - computed_[static_cast<size_t>(seat)];
    if (todo < 2) continue;
    const int32_t n = std::min(todo, budget);
    add_prefill(seat, n);
    budget -= n;
  }
  admit_waiting(budget);
  if (rows_.empty()) return nullptr;
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
  return &batch_;
}

// In order, and none overtakes the head: what does not fit yet holds up what came later.
void Scheduler::admit_waiting(int32_t budget) {
  while (budget > 0 && waiting_head_ != kNone && !free_seats_.empty()) {
    const int32_t entry = waiting_head_;
    const Request& r = requests_[static_cast<size_t>(entry)];
    if (blocks_for(static_cast<int64_t>(r.tokens.size())) > static_cast<int32_t>(free_blocks_.size())) return;
    dequeue(entry);
    take_seat(entry);
    const int32_t n = std::min(total_[static_cast<size_t>(r.seat)], budget);
    add_prefill(r.seat, n);
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

void Scheduler::complete(int64_t now_ns, const int32_t* next_token) {
  if (!in_flight()) throw std::logic_error("complete() without a batch in flight: schedule() one first.");
  for (size_t row = 0; row < rows_.size(); ++row) {
    const int32_t seat = rows_[row];
    const auto s = static_cast<size_t>(seat);
    if (ended_[s]) continue;
    const int32_t from = computed_[s];
    computed_[s] += q_start_[row + 1] - q_start_[row];
    if (from < n_prompt_[s]) count_prompt(seat);
    if (want_[row]) accept(seat, next_token[row], now_ns);
  }
  close_batch();
}

void Scheduler::fail(int64_t now_ns, const std::string& message) {
  if (!in_flight()) throw std::logic_error("fail() without a batch in flight: schedule() one first.");
  for (const int32_t seat : rows_) {
    const auto s = static_cast<size_t>(seat);
    if (ended_[s]) continue;
    end(entry_[s], Outcome::failed, now_ns, message);
    ended_[s] = 1;
  }
  close_batch();
}

void Scheduler::accept(int32_t seat, int32_t token, int64_t now_ns) {
  const auto s = static_cast<size_t>(seat);
  if (token < 0) {
    end(entry_[s], Outcome::failed, now_ns, "the engine gave no token where one was wanted");
    ended_[s] = 1;
    return;
  }
  if (total_[s] == n_prompt_[s]) requests_[static_cast<size_t>(entry_[s])].first_token_ns = now_ns;
  text_[s][total_[s]++] = token;
  last_token_[s] = token;
  ++counters_.output_tokens;
  events_.tokens.push_back({id_[s], now_ns, token});
  if (--left_[s] == 0 || token == stop_[s]) {
    end(entry_[s], Outcome::finished, now_ns);
    ended_[s] = 1;
  }
}

void Scheduler::count_prompt(int32_t seat) {
  const auto s = static_cast<size_t>(seat);
  Request& r = requests_[static_cast<size_t>(entry_[s])];
  const int32_t done = std::min(computed_[s], r.n_prompt);
  counters_.prompt_tokens += std::max(done - r.n_prompt_done, 0);
  r.n_prompt_done = std::max(done, r.n_prompt_done);
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

// ---- What is known of it -----------------------------------------------------------------------------------------

void Scheduler::take_events(Events& into) {
  into.clear();
  std::swap(into, events_);
}

SchedulerCounters Scheduler::counters() const {
  SchedulerCounters c = counters_;
  c.running = static_cast<int64_t>(order_.size());
  c.waiting = waiting_count_;
  c.queued_tokens = waiting_tokens_;
  c.kv_blocks_used = config_.num_blocks - static_cast<int64_t>(free_blocks_.size());
  return c;
}

void Scheduler::check() const {
  std::vector<uint8_t> owned(static_cast<size_t>(config_.num_blocks));
  const auto own = [&](int32_t block) {
    require(block >= 0 && block < config_.num_blocks, "a block is one of the pool's");
    require(!owned[static_cast<size_t>(block)]++, "no block is owned twice");
  };
  for (const int32_t block : free_blocks_) own(block);
  const Request* last = nullptr;
  size_t live = 0;
  for (const int32_t seat : order_) {
    const auto s = static_cast<size_t>(seat);
    const Request& r = requests_[static_cast<size_t>(entry_[s])];
    require(r.seat == seat, "a seat and its request know each other");
    require(!last || before(*last, r), "the running are in order");
    require(computed_[s] <= total_[s] && total_[s] <= n_blocks_[s] * int64_t{config_.block_size} + 1,
            "a sequence's blocks hold all its tokens but the newest");
    for (int32_t i = 0; i < n_blocks_[s]; ++i) own(blocks_[s * static_cast<size_t>(max_blocks_) + static_cast<size_t>(i)]);
    live += !ended_[s];
    last = &r;
  }
  require(std::count(owned.begin(), owned.end(), 1) == config_.num_blocks, "free and owned make up all blocks");
  require(order_.size() + free_seats_.size() == static_cast<size_t>(config_.max_num_seqs), "seats add up");
  int64_t count = 0, tokens = 0;
  int32_t previous = kNone;
  for (int32_t i = waiting_head_; i != kNone; previous = i, i = requests_[static_cast<size_t>(i)].next) {
    const Request& r = requests_[static_cast<size_t>(i)];
    require(r.prev == previous && r.seat == kNone, "the waiting list is linked both ways");
    require(!last || before(*last, r), "the waiting are in order, after the running");
    last = &r;
    ++count;
    tokens += static_cast<int64_t>(r.tokens.size());
  }
  require(previous == waiting_tail_ && count == waiting_count_ && tokens == waiting_tokens_, "the queue adds up");
  require(live + static_cast<size_t>(count) == entry_of_.size(), "each live request is running or waiting");
  int64_t ended = 0;
  for (const int64_t n : counters_.outcomes) ended += n;
  ended -= counters_.outcomes[static_cast<int>(Outcome::rejected)];
  require(ended + static_cast<int64_t>(entry_of_.size()) == static_cast<int64_t>(last_id_), "each ends exactly once");
  require(batch_.n_tokens <= config_.max_num_batched_tokens, "tokens are within the budget");
  require(has_work() || free_blocks_.size() == static_cast<size_t>(config_.num_blocks), "all blocks free when idle");
}

}  // namespace ww
