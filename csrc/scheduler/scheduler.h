// The batching scheduler: a state machine without threads, wall clock or randomness. Time comes in with each call.
//
// Continuous batching under a token budget: in each step the running decodes first, then running prefills (in chunks),
// while the waiting are admitted, in the order that queue.h states, as long as seats, budget and KV blocks last. None
// overtakes the head of that order: what does not fit yet holds up what comes after.
//
// A sequence takes the blocks of all its tokens when it is admitted, and one more whenever it outgrows them; so only a
// decode can run out of blocks. Then the running request that comes last gives up its blocks, waits in its old place
// in the queue, and its tokens are computed anew (preemption by recompute). Among the running, the aged come first
// (those overtaken max_overtakes times), then larger priority, then arrival: so the victim is of the lowest priority,
// and of those the latest. A head of strictly higher priority takes seat, blocks and budget from the running in the
// same way (displacement), but never from an aged one, and from nobody where it would not fit all the same. Neither
// touches a batch in flight. Aging ends with a seat: there prefills get their budget by the order of the running.
//
// With enable_prefix_sharing a request is admitted onto the blocks of the longest prefix that others hold at the moment
// (prefixes.h): it holds them as well, computes only what follows, and needs, and is charged for, only that.
//
// One batch is in flight at a time: schedule(), then complete() or fail(). submit(), cancel() and expire() may come at
// any moment, also in between. src/wattwork/scheduler/twin.py is the same machine in Python: equal calls, equal
// decisions. Here: scheduler.cpp (requests come and go), step.cpp (who runs, and the batch), share.cpp (prefixes),
// check.cpp (invariants); queue.h (who is next), wheel.h (timeouts), cost.h (what a step costs).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/cost.h"
#include "scheduler/huge.h"
#include "scheduler/ids.h"
#include "scheduler/prefixes.h"
#include "scheduler/queue.h"
#include "scheduler/wheel.h"
#include "wattwork/wattwork.h"

namespace ww {

struct SchedulerConfig {
  int32_t max_num_seqs;            // running at once
  int32_t max_num_batched_tokens;  // in one step; at least max_num_seqs, so that no decode waits for another
  int32_t max_num_queued_reqs;     // waiting
  int64_t max_num_queued_tokens;   // of those waiting
  int32_t block_size;              // tokens a KV block holds
  int32_t num_blocks;
  int32_t max_model_len;  // prompt and output together
  int64_t max_queue_delay_us = 0;  // how long, with nothing running, requests may wait for more to share their batch
  int32_t max_overtakes = 1024;    // first admissions of later arrivals that a waiting request lets pass, at most
  bool enable_prefix_sharing = false;  // requests that begin alike hold the same KV blocks
};

struct RequestParams {
  int32_t max_tokens;
  int32_t stop_token_id;  // ends the output, as its last token; -1: none
  ww_sampling sampling;
  int32_t priority = 0;     // larger is more urgent
  uint64_t tenant = 0;      // any number that stands for who asks
  int64_t deadline_ns = 0;  // when it should have finished; 0: whenever
  int64_t timeout_ns = 0;   // when it ends if it has not; 0: never
};

enum class Outcome : uint8_t { finished, cancelled, timed_out, rejected, failed };

// Why a batch went when it did.
enum class Release : uint8_t {
  running,   // requests were running already
  no_delay,  // max_queue_delay_us is 0
  draining,
  full,   // max_num_seqs requests waited
  delay,  // the oldest had waited for max_queue_delay_us
};
constexpr int kReleases = 5;

// What submit() answers instead of an id. The Python package has the same numbers (scheduler/twin.py).
enum Reject : int64_t {
  kRejectInvalid = -1,             // no tokens, or max_tokens < 1
  kRejectTooLarge = -2,            // could never run: longer than max_model_len, the block pool or the queue's bound
  kRejectDraining = -3,            // drain() is under way
  kRejectQueueFull = -4,           // the queue is at one of its bounds
  kRejectClosed = -5,              // the loop is closed, or this process is a fork of the one that made it
  kRejectNoEngine = -6,            // the loop has no engine
  kRejectDeadlineInfeasible = -7,  // even alone on the engine it would finish after its deadline
};

struct TokenEvent {
  uint64_t id;
  int64_t time_ns;
  int32_t token;
};

struct EndEvent {
  uint64_t id;
  Outcome outcome;
  bool deadline_missed;  // finished, timed out or failed after its deadline
  int32_t n_prompt, n_output;
  int64_t submitted_ns, first_token_ns, finished_ns;  // first_token_ns: -1 where there was none
  std::string message;                                // why, if it failed
};

// A request's tokens all come before its end.
struct Events {
  std::vector<TokenEvent> tokens;
  std::vector<EndEvent> ends;
  bool empty() const { return tokens.empty() && ends.empty(); }
  void clear() { tokens.clear(), ends.clear(); }
};

struct SchedulerCounters {
  int64_t outcomes[5];    // requests ended, by Outcome
  int64_t running;        // holding a seat
  int64_t waiting;
  int64_t queued_tokens;  // of those waiting
  int64_t steps;
  int64_t prompt_tokens;  // computed, each once however often recomputed
  int64_t prefix_shared_tokens;  // of prompts, and to be recomputed: taken from others' blocks instead
  int64_t output_tokens;
  int64_t preemptions;
  int64_t deadline_misses;
  int64_t releases[kReleases];  // steps, by Release
  int64_t kv_blocks_used;
  int64_t tenants;  // remembered, those of each priority
  std::array<double, 3> step_cost_s;  // seconds of a step: of itself, for each token, for each sequence
};

// Request `id` was admitted onto the first blocks of `donor`, which ran.
struct PrefixShare {
  uint64_t id, donor;
  int32_t n_blocks;
};

class LogWriter;

class WW_API Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);  // throws std::invalid_argument
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // An id (1, 2, ... in order of arrival) or a Reject. tokens [n].
  int64_t submit(int64_t now_ns, const int32_t* tokens, int32_t n, const RequestParams& params);
  // Ends a request as cancelled; false if there is none of that id any more. One in flight keeps its blocks until its
  // step is complete; nothing more of it is executed.
  bool cancel(int64_t now_ns, uint64_t id);
  void cancel_all(int64_t now_ns);
  // Ends those whose timeout has come, in order of id, as cancel() does.
  void expire(int64_t now_ns);
  // When to call expire(), and schedule() where nothing is in flight, at the latest. kNever: whenever.
  int64_t next_wakeup_ns() const;
  int64_t next_timeout_ns() const { return timeouts_.next_ns(); }

  // The next batch, valid until the call after its complete() or fail(); nullptr: nothing to do, or not yet. First
  // what is due expires.
  const ww_batch* schedule(int64_t now_ns);
  void complete(int64_t now_ns, const int32_t* next_token);  // [n_seqs] as ww_out has it
  void fail(int64_t now_ns, const std::string& message);     // its requests end as failed, no others

  void set_draining(bool draining);
  bool has_work() const { return !order_.empty() || queue_.size() != 0; }
  bool in_flight() const { return !rows_.empty(); }
  Release release() const { return release_; }  // why the last batch went

  // Swaps what has happened since the last call into `into`, which is cleared first.
  void take_events(Events& into);
  const Events& events() const { return events_; }
  SchedulerCounters counters() const;
  uint64_t decision_hash() const { return hash_; }
  // Before the first request: no engine will read the batches. They say how many tokens each sequence has, not which,
  // nor in which blocks, and submit() takes null for its tokens.
  void plan_only() { fills_ = false; }
  // Where plan_only() knows no contents: who shares in the next schedule(), in order of admission.
  void offer(const PrefixShare& share) { offers_.push_back(share); }
  bool take_back_offers();  // false: there were none left. One that cannot be is never taken
  // Records every call that changes the state (log.h), from the first on. Throws std::runtime_error.
  void record(const std::string& path);
  // Ends the recording. What kept it from being written whole; empty: nothing did, or there was none.
  std::string stop_recording();
  const SchedulerConfig& config() const { return config_; }
  // Tenants that wait all along within one priority are never further apart in their counters than this, so never
  // more than twice it in service, where nobody is aged: what max_num_seqs requests can be charged for.
  int64_t counter_bound() const { return kOutputTokenCharge * config_.max_num_seqs * int64_t{config_.max_model_len}; }
  void check();  // throws std::logic_error naming the invariant that does not hold

 private:
  static constexpr int32_t kNone = -1;
  static constexpr size_t kLeastRequests = 64, kMostRequests = 1 << 14;  // that get their memory at once
  // Up to so many, prompt and output get their memory at once, and leave it to the next request.
  static constexpr int64_t kFewTokens = 64;

  // What only changes when a request moves; what every step touches is in its seat.
  struct Request : Queued, Timer {
    std::vector<int32_t> tokens;  // prompt, then output; while seated with room for all of it. Empty in plan_only()
    RequestParams params{};
    int32_t n_prompt = 0;
    int32_t n_tokens = 0;       // prompt and output, as of when it last had no seat
    int32_t n_prompt_done = 0;  // of the prompt: counted in prompt_tokens, or shared when first needed
    int32_t seat = kNone;
    int64_t submitted_ns = 0, first_token_ns = -1;
  };

  // One cache line, which a step touches in the order of the running.
  struct alignas(64) Seat {
    uint64_t id;
    int64_t* charge;  // its tenant's counter
    int32_t* text;    // the request's tokens
    int32_t total, computed, left, last_token, stop, n_prompt, n_blocks, last_block;
    uint32_t tenancy;  // counts the seat's occupants
    bool ended;        // in flight: leaves with its step
  };

  int32_t blocks_for(int64_t tokens) const {
    return static_cast<int32_t>((tokens + config_.block_size - 1) / config_.block_size);
  }
  int32_t length(const Request& r) const {  // tokens known: prompt, and output so far
    return r.seat == kNone ? r.n_tokens : seat_at(r.seat).total;
  }
  int32_t todo(int32_t seat) const {  // tokens to compute before the next output
    return seat_at(seat).total - seat_at(seat).computed;
  }
  Seat& seat_at(int32_t seat) { return seats_[static_cast<size_t>(seat)]; }
  const Seat& seat_at(int32_t seat) const { return seats_[static_cast<size_t>(seat)]; }
  Request& at(int32_t seat) const { return *request_[static_cast<size_t>(seat)]; }
  int32_t n_shared() const { return static_cast<int32_t>(shared_.size()); }
  const int32_t* blocks_of(int32_t seat) const { return blocks_.data() + int64_t{seat} * max_blocks_; }
  int32_t* blocks_of(int32_t seat) { return blocks_.data() + int64_t{seat} * max_blocks_; }
  int64_t admission(int64_t now_ns, int32_t n, const RequestParams& params) const;  // 0, or a Reject
  Request& new_request();
  void free_request(Request& r);
  void enqueue(Request& r);
  void end_early(Request& r, Outcome outcome, int64_t now_ns);  // wherever it is

  // The one place that decides the order among the running.
  bool runs_before(const Request& a, const Request& b) const;
  void grow_decodes();
  bool grow(int32_t seat);        // one block more; false: the sequence itself had to give up its blocks
  bool may_hold() const;          // what waits may wait for more to share its batch, until:
  int64_t delay_end_ns() const;
  Release reason() const;
  void admit_waiting();
  bool displaceable(int32_t seat, int32_t by_priority) const {
    return at(seat).priority < by_priority && !queue_.aged(at(seat));
  }
  int32_t victims_for(const Request& r) const;  // how many must go for it to be admitted; kNone: it cannot be
  void take_seat(Request& r);
  void leave_seat(int32_t seat);  // gives back blocks and seat; order_ is the caller's to mend
  void preempt_last();
  void pin_prefix(const Request& r);
  void unpin_prefix();
  void log_share(const Request& r);
  void share_prefix(Request& r);
  void enter_full_blocks();
  const Request* donor_for(const Request& r) const;
  void add_rows();
  size_t open_row(int32_t seat, int32_t n);  // where its tokens go
  void add_decode(int32_t seat);
  void add_prefill(int32_t seat, int32_t n);
  void fill_blocks(size_t row, int32_t seat);
  void accept(int32_t seat, int32_t token, int64_t now_ns);
  void count_prompt(int32_t seat);
  void log_complete(int64_t now_ns, const int32_t* next_token);
  void end(Request& r, Outcome outcome, int64_t now_ns, const std::string& message = {});
  void retire(int32_t seat);  // after end(): seat and request are free again
  void close_batch();
  void check_seats() const;
  void check_prefixes() const;
  void check_queue();
  void decide(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9E3779B97F4A7C15u;
    hash_ ^= hash_ >> 32;
  }

  SchedulerConfig config_;
  int32_t max_blocks_;  // columns of the block table
  bool draining_ = false;
  bool fills_ = true;  // batches are filled for an engine

  // Never moved: as many again each time, within bounds.
  std::vector<std::vector<Request, HugeAllocator<Request>>> requests_;
  size_t n_requests_ = 0;
  std::vector<Request*> free_requests_;
  IdTable<Request> live_;  // those that have not ended
  uint64_t last_id_ = 0;
  WaitingQueue queue_;
  int64_t waiting_tokens_ = 0;
  Wheel timeouts_;
  StepCost cost_;
  int64_t scheduled_ns_ = 0;  // when the batch in flight was
  Release release_ = Release::running;

  // By seat [max_num_seqs].
  std::vector<Seat> seats_;
  std::vector<Request*> request_;
  std::vector<ww_sampling> seat_sampling_;
  std::vector<int32_t> blocks_;  // [max_num_seqs, max_blocks_]
  std::vector<int32_t> free_seats_, free_blocks_;
  std::vector<int32_t> order_;  // occupied seats, in order of `runs_before`
  int64_t claimed_ = 0;         // tokens of the step that the running want
  int32_t sampled_ = 0;         // occupied seats whose sampling is not plain greedy

  std::unique_ptr<Prefixes> prefixes_;  // null: nothing is shared
  std::vector<int32_t> shared_;         // the prefix of the request that is being admitted
  struct Entered {
    int32_t n;        // of the sequence's blocks, the first so many
    int64_t look_at;  // so many tokens computed: another block is full
  };
  std::vector<Entered> entered_;  // by seat
  std::vector<PrefixShare> offers_;
  size_t next_offer_ = 0;

  // The batch. A row of the block table is rewritten only as far as it changed since the row's last use.
  struct Row {
    int32_t seat;
    uint32_t tenancy;
    int32_t n_blocks;
  };
  std::vector<int32_t> rows_;     // seats of the batch in flight
  std::vector<Row> table_state_;  // what each row of table_ holds
  std::vector<int32_t> tokens_, q_start_, ctx_len_, table_, slot_map_;
  std::vector<uint8_t> want_;
  std::vector<ww_sampling> sampling_;
  ww_batch batch_{};

  Events events_;
  SchedulerCounters counters_{};
  uint64_t hash_ = 0;
  std::unique_ptr<LogWriter> log_;  // null: nothing is recorded
};

}  // namespace ww
