#include "scheduler/scheduler.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "scheduler/log.h"
#include "scheduler/words.h"

namespace ww {

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config), queue_(config.max_overtakes), cost_(config.max_num_batched_tokens, config.max_num_seqs) {
  const auto& c = config_;
  if (c.max_num_seqs < 1 || c.max_num_batched_tokens < c.max_num_seqs || c.max_num_queued_reqs < 1 ||
      c.max_num_queued_tokens < 1 || c.block_size < 1 || c.num_blocks < 1 || c.max_model_len < 1 ||
      c.max_queue_delay_us < 0 || c.max_overtakes < 1 ||
      int64_t{c.num_blocks} * c.block_size > std::numeric_limits<int32_t>::max())
    throw std::invalid_argument(
        "every field of a scheduler's config must be at least 1 (max_queue_delay_us: 0), max_num_batched_tokens at "
        "least max_num_seqs, and num_blocks * block_size below 2^31.");
  max_blocks_ = blocks_for(c.max_model_len);
  const auto seats = static_cast<size_t>(c.max_num_seqs);
  const auto budget = static_cast<size_t>(c.max_num_batched_tokens);
  seats_.resize(seats);
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
  request_.resize(seats);
  rows_.reserve(seats);
  order_.reserve(seats);
  for (int32_t i = c.max_num_seqs; i-- > 0;) free_seats_.push_back(i);
  for (int32_t i = c.num_blocks; i-- > 0;) free_blocks_.push_back(i);
  if (!c.enable_prefix_sharing) return;
  prefixes_ = std::make_unique<Prefixes>(c.num_blocks, c.block_size);
  entered_.resize(seats);
}

// ---- Requests come and go ----------------------------------------------------------------------------------------

int64_t Scheduler::admission(int64_t now_ns, int32_t n, const RequestParams& params) const {
  if (n < 1 || params.max_tokens < 1) return kRejectInvalid;
  const int64_t positions = int64_t{n} + params.max_tokens;
  // The last token of an output is never fed back: it needs no KV.
  if (positions > config_.max_model_len || blocks_for(positions - 1) > config_.num_blocks ||
      n > config_.max_num_queued_tokens)
    return kRejectTooLarge;
  if (draining_) return kRejectDraining;
  if (queue_.size() >= config_.max_num_queued_reqs || waiting_tokens_ + n > config_.max_num_queued_tokens)
    return kRejectQueueFull;
  if (params.deadline_ns && cost_.known()) {
    const int64_t prefills = (n + int64_t{config_.max_num_batched_tokens} - 1) / config_.max_num_batched_tokens;
    const double alone_ns = cost_.alone_s(prefills, n, params.max_tokens) * 1e9;
    if (alone_ns > static_cast<double>(params.deadline_ns - now_ns)) return kRejectDeadlineInfeasible;
  }
  return 0;
}

int64_t Scheduler::submit(int64_t now_ns, const int32_t* tokens, int32_t n, const RequestParams& params) {
  if (log_) log_->submit(now_ns, n, params);
  if (const int64_t code = admission(now_ns, n, params); code != 0) {
    ++counters_.outcomes[static_cast<int>(Outcome::rejected)];
    decide(kSaysRejected | static_cast<uint64_t>(-code));
    return code;
  }
  Request& r = new_request();
  r.id = ++last_id_;
  r.n_tokens = n;
  if (fills_) {
    if (int64_t{n} + params.max_tokens <= kFewTokens) r.tokens.reserve(static_cast<size_t>(n + params.max_tokens));
    r.tokens.assign(tokens, tokens + n);
  }
  r.params = params;
  r.priority = params.priority;
  r.deadline_ns = params.deadline_ns;
  r.n_prompt = n;
  r.submitted_ns = now_ns;
  live_.insert(&r);
  queue_.join(r, params.tenant);
  enqueue(r);
  if (params.timeout_ns) timeouts_.arm(r, params.timeout_ns);
  decide(kSaysAdmitted | r.id);
  return static_cast<int64_t>(r.id);
}

bool Scheduler::cancel(int64_t now_ns, uint64_t id) {
  Request* r = live_.find(id);
  if (!r) return false;
  if (log_) log_->cancel(now_ns, id);
  end_early(*r, Outcome::cancelled, now_ns);
  return true;
}

void Scheduler::cancel_all(int64_t now_ns) {
  std::vector<uint64_t> ids;
  live_.each([&](const Request& r) { ids.push_back(r.id); });
  std::sort(ids.begin(), ids.end());
  for (const uint64_t id : ids) cancel(now_ns, id);
}

void Scheduler::expire(int64_t now_ns) {
  if (timeouts_.next_ns() > now_ns) return;
  std::vector<Request*> due;
  timeouts_.expire(now_ns, [&](Timer& timer) { due.push_back(static_cast<Request*>(&timer)); });
  if (log_ && !due.empty()) log_->expire(now_ns);
  std::sort(due.begin(), due.end(), [](const Request* a, const Request* b) { return a->id < b->id; });
  for (Request* r : due) end_early(*r, Outcome::timed_out, now_ns);
}

void Scheduler::end_early(Request& r, Outcome outcome, int64_t now_ns) {
  // One of a million was long untouched: fetch it and its neighbours at once, not a line after the other.
  for (size_t at = 0; at < sizeof r; at += 64) __builtin_prefetch(reinterpret_cast<const char*>(&r) + at, 1);
  const int32_t seat = r.seat;
  if (seat == kNone) {
    queue_.prefetch(r);
    timeouts_.prefetch(r);
    waiting_tokens_ -= r.n_tokens;
    queue_.drop(r);
    end(r, outcome, now_ns);
    return free_request(r);
  }
  end(r, outcome, now_ns);
  if (std::find(rows_.begin(), rows_.end(), seat) != rows_.end()) {
    seat_at(seat).ended = true;
  } else {
    order_.erase(std::find(order_.begin(), order_.end(), seat));
    retire(seat);
  }
}

void Scheduler::end(Request& r, Outcome outcome, int64_t now_ns, const std::string& message) {
  const bool missed = r.deadline_ns && now_ns > r.deadline_ns && outcome != Outcome::cancelled;
  const int32_t n_output = length(r) - r.n_prompt;
  events_.ends.push_back(
      {r.id, outcome, missed, r.n_prompt, n_output, r.submitted_ns, r.first_token_ns, now_ns, message});
  ++counters_.outcomes[static_cast<int>(outcome)];
  counters_.deadline_misses += missed;
  decide(kSaysEnded | r.id << 3 | static_cast<uint64_t>(outcome));
  timeouts_.cancel(r);
  live_.erase(r.id);
}

Scheduler::Request& Scheduler::new_request() {
  if (free_requests_.empty()) {
    auto& fresh = requests_.emplace_back(std::clamp(n_requests_, kLeastRequests, kMostRequests));
    n_requests_ += fresh.size();
    for (size_t i = fresh.size(); i-- > 0;) free_requests_.push_back(&fresh[i]);
  }
  Request* r = free_requests_.back();
  free_requests_.pop_back();
  return *r;
}

void Scheduler::free_request(Request& r) {
  queue_.leave(r);
  std::vector<int32_t> memory;
  if (std::ssize(r.tokens) <= kFewTokens) memory = std::move(r.tokens);
  memory.clear();
  r = Request{};
  r.tokens = std::move(memory);
  free_requests_.push_back(&r);
}

void Scheduler::enqueue(Request& r) {
  queue_.push(r);
  waiting_tokens_ += r.n_tokens;
}

void Scheduler::set_draining(bool draining) {
  if (log_ && draining != draining_) log_->drain(draining);
  draining_ = draining;
}

// ---- Its recording -----------------------------------------------------------------------------------------------

Scheduler::~Scheduler() = default;

void Scheduler::record(const std::string& path) {
  if (last_id_ != 0 || hash_ != 0) throw std::runtime_error("a recording begins before the first request");
  log_ = std::make_unique<LogWriter>(path, config_);
}

std::string Scheduler::stop_recording() {
  if (!log_) return {};
  log_->finish(hash_);
  const std::string error = log_->error();
  log_.reset();
  return error;
}

// ---- What is known of it -----------------------------------------------------------------------------------------

int64_t Scheduler::next_wakeup_ns() const {
  return std::min(timeouts_.next_ns(), !in_flight() && may_hold() ? delay_end_ns() : kNever);
}

void Scheduler::take_events(Events& into) {
  into.clear();
  std::swap(into, events_);
}

SchedulerCounters Scheduler::counters() const {
  SchedulerCounters c = counters_;
  c.running = static_cast<int64_t>(order_.size());
  c.waiting = queue_.size();
  c.queued_tokens = waiting_tokens_;
  c.kv_blocks_used = config_.num_blocks - static_cast<int64_t>(free_blocks_.size());
  c.tenants = queue_.tenants();
  c.step_cost_s = cost_.coefficients();
  return c;
}

}  // namespace ww
