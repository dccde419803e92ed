// The batching scheduler: a state machine without threads, wall clock or randomness. Time comes in with each call.
//
// Continuous batching under a token budget: in each step the running decodes first, then running prefills (in chunks),
// then waiting requests in order while seats, budget and KV blocks last. First come, first served, also across
// preemption: the victim is the running request that comes last in the order; it gives up its blocks, waits in its old
// place, and its tokens are computed anew (recompute). A sequence takes the blocks of all its tokens when it is
// admitted, and one more whenever it outgrows them; so only a decode can run out of blocks.
//
// One batch is in flight at a time: schedule(), then complete() or fail(). submit() and cancel() may come at any
// moment, also in between. src/wattwork/scheduler/twin.py is the same machine in Python: equal calls, equal decisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

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
};

struct RequestParams {
  int32_t max_tokens;
  int32_t stop_token_id;  // ends the output, as its last token; -1: none
  ww_sampling sampling;
};

enum class Outcome : uint8_t { finished, cancelled, timed_out, rejected, failed };

// What submit() answers instead of an id. The Python package has the same numbers (scheduler/twin.py).
enum Reject : int64_t {
  kRejectInvalid = -1,    // no tokens, or max_tokens < 1
  kRejectTooLarge = -2,   // could never run: longer than max_model_len, the block pool or the queue's token bound
  kRejectDraining = -3,   // drain() is under way
  kRejectQueueFull = -4,  // the queue is at one of its bounds
  kRejectClosed = -5,     // the loop is closed, or this process is a fork of the one that made it
  kRejectNoEngine = -6,   // the loop has no engine
};

struct TokenEvent {
  uint64_t id;
  int64_t time_ns;
  int32_t token;
};

struct EndEvent {
  uint64_t id;
  Outcome outcome;
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
  int64_t output_tokens;
  int64_t preemptions;
  int64_t kv_blocks_used;
};

class WW_API Scheduler {
 public:
  explicit Scheduler(const SchedulerConfig& config);  // throws std::invalid_argument
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // An id (1, 2, ... in order of arrival) or a Reject. tokens [n].
  int64_t submit(int64_t now_ns, const int32_t* tokens, int32_t n, const RequestParams& params);
  // Ends a request as cancelled; false if there is none of that id any more. One in flight keeps its blocks until its
  // step is complete; nothing more of it is executed.
  bool cancel(int64_t now_ns, uint64_t id);
  void cancel_all(int64_t now_ns);

  // The next batch, valid until the call after its complete() or fail(); nullptr: nothing to do.
  const ww_batch* schedule(int64_t now_ns);
  void complete(int64_t now_ns, const int32_t* next_token);  // [n_seqs] as ww_out has it
  void fail(int64_t now_ns, const std::string& message);     // its requests end as failed, no others

  void set_draining(bool draining) { draining_ = draining; }
  bool has_work() const { return !order_.empty() || waiting_count_ != 0; }
  bool in_flight() const { return !rows_.empty(); }

  // Swaps what has happened since the last call into `into`, which is cleared first.
  void take_events(Events& into);
  const Events& events() const { return events_; }
  SchedulerCounters counters() const;
  uint64_t decision_hash() const { return hash_; }
  const SchedulerConfig& config() const { return config_; }
  void check() const;  // throws std::logic_error naming the invariant that does not hold

 private:
  static constexpr int32_t kNone = -1;

  // What only changes when a request moves; what every step touches is in the arrays by seat below.
  struct Request {
    uint64_t id = 0;  // 0: a free entry
    std::vector<int32_t> tokens;  // prompt, then output; while seated with room for all of it
    RequestParams params{};
    int32_t n_prompt = 0;
    int32_t n_prompt_done = 0;  // counted in prompt_tokens
    int32_t seat = kNone;
    int32_t prev = kNone, next = kNone;  // neighbours in the waiting list
    int64_t submitted_ns = 0, first_token_ns = -1;
  };

  // The one place that decides the order, among waiting and running alike.
  static bool before(const Request& a, const Request& b) { return a.id < b.id; }

  int32_t blocks_for(int64_t tokens) const {
    return static_cast<int32_t>((tokens + config_.block_size - 1) / config_.block_size);
  }
  int32_t length(const Request& r) const {  // tokens known: prompt, and output so far
    return r.seat == kNone ? static_cast<int32_t>(r.tokens.size()) : total_[static_cast<size_t>(r.seat)];
  }
  int64_t admission(int32_t n, const RequestParams& params) const;  // 0, or a Reject
  int32_t new_entry();
  void free_entry(int32_t entry);
  void enqueue(int32_t entry);
  void dequeue(int32_t entry);

  void admit_waiting(int32_t budget);
  void take_seat(int32_t entry);
  void leave_seat(int32_t seat);  // gives back blocks and seat; order_ is the caller's to mend
  bool grow(int32_t seat);        // false: the sequence itself had to give up its blocks
  void preempt_last();
  size_t open_row(int32_t seat, int32_t n);  // where its tokens go
  void add_decode(int32_t seat);
  void add_prefill(int32_t seat, int32_t n);
  void fill_blocks(size_t row, int32_t seat);
  void accept(int32_t seat, int32_t token, int64_t now_ns);
  void count_prompt(int32_t seat);
  void end(int32_t entry, Outcome outcome, int64_t now_ns, const std::string& message = {});
  void retire(int32_t seat);  // after end(): seat and entry are free again
  void close_batch();
  void decide(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x9E3779B97F4A7C15u;
    hash_ ^= hash_ >> 32;
  }

  SchedulerConfig config_;
  int32_t max_blocks_;  // columns of the block table
  bool draining_ = false;

  std::vector<Request> requests_;
  std::vector<int32_t> free_entries_;
  std::unordered_map<uint64_t, int32_t> entry_of_;  // of requests that have not ended
  uint64_t last_id_ = 0;
  int32_t waiting_head_ = kNone, waiting_tail_ = kNone;
  int64_t waiting_count_ = 0, waiting_tokens_ = 0;

  // By seat [max_num_seqs].
  std::vector<uint64_t> id_;
  std::vector<int32_t> entry_, computed_, total_, left_, last_token_, stop_, n_prompt_, n_blocks_, last_block_;
  std::vector<int32_t*> text_;  // the request's tokens
  std::vector<ww_sampling> seat_sampling_;
  std::vector<uint8_t> ended_;     // cancelled in flight: leaves with its step
  std::vector<uint32_t> tenancy_;  // counts the seat's occupants
  std::vector<int32_t> blocks_;    // [max_num_seqs, max_blocks_]
  std::vector<int32_t> free_seats_, free_blocks_;
  std::vector<int32_t> order_;  // occupied seats, in order of `before`
  int32_t sampled_ = 0;         // occupied seats whose sampling is not plain greedy

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
};

}  // namespace ww
