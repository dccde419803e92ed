// What became of requests, gathered from a scheduler's events: what a simulation and a replay answer.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"

namespace ww {

// Times are -1 where there was none, `outcome` where it has not ended. Python reads an array of these (scheduler/served.py).
struct ServedRequest {
  int64_t submitted_ns, first_token_ns, last_token_ns, ended_ns;
  int32_t prompt_tokens, output_tokens, device;
  int32_t outcome;
};

struct Served {
  std::vector<ServedRequest> requests;               // in order of arrival
  std::vector<std::pair<int64_t, int64_t>> gaps_ns;  // between a request's tokens: (gap, how many in a row)

  // `id`: what submit() answered.
  ServedRequest& arrived(int64_t now_ns, int32_t n_prompt, int32_t device, int64_t id) {
    const bool rejected = id < 0;
    return requests.emplace_back(ServedRequest{now_ns, -1, -1, rejected ? now_ns : -1, n_prompt, 0, device,
                                               rejected ? static_cast<int32_t>(Outcome::rejected) : -1});
  }

  void add(ServedRequest& r, const TokenEvent& e) {
    if (r.output_tokens++ == 0) r.first_token_ns = e.time_ns;
    else count_gap(e.time_ns - r.last_token_ns);
    r.last_token_ns = e.time_ns;
  }

  void add(ServedRequest& r, const EndEvent& e) {
    r.ended_ns = e.finished_ns;
    r.outcome = static_cast<int32_t>(e.outcome);
  }

 private:
  // Most sequences of a step have waited for the one before: equal gaps come in a row.
  void count_gap(int64_t ns) {
    if (gaps_ns.empty() || gaps_ns.back().first != ns) gaps_ns.emplace_back(ns, 0);
    ++gaps_ns.back().second;
  }
};

}  // namespace ww
