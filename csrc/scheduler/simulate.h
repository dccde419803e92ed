// A trace run through the scheduler in virtual time: an event loop over its arrivals and the ends of steps.
//
// A step of T tokens and S sequences takes step_s + per_token_s * T + per_sequence_s * S, times a factor drawn evenly
// from 1 ± jitter; whole nanoseconds, at least one. At one instant first the steps that end are completed and what is
// due expires, then arrivals are submitted in their order, then idle devices begin a step. Each device has a scheduler
// of its own; a request goes to the device with the least outstanding tokens (prompts and outputs of its requests that
// have not ended), the lowest number among equals. Tokens are all 0, and no output ends before its length.
//
// src/wattwork/scheduler/simulate_twin.py is the same loop over the twin.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "scheduler/served.h"

namespace ww {

// Arrays [n]; those from `priority` on may be null, for all zeros.
struct SimArrivals {
  int64_t n;
  const int64_t* time_ns;  // never falling
  const int32_t* prompt_tokens;
  const int32_t* output_tokens;
  const int32_t* priority;
  const uint64_t* tenant;
  const int64_t* deadline_ns;  // from its arrival; 0: none
  const int64_t* timeout_ns;   // the same
};

struct SimCost {
  double step_s, per_token_s, per_sequence_s, jitter;
  uint64_t seed;
};

struct SimDevice {
  SchedulerCounters counters;
  uint64_t decision_hash;
  int64_t busy_ns;
};

struct SimResult {
  Served served;
  std::vector<SimDevice> devices;
  int64_t end_ns = 0;  // when the last step ended
};

// `stop` is asked now and then; true ends the simulation where it is. Throws what Scheduler's constructor throws.
WW_API SimResult simulate(const SchedulerConfig& config, const SimArrivals& arrivals, const SimCost& cost, int devices,
                          const std::function<bool()>& stop = {});

}  // namespace ww
