// What bench_burst.py times, in a program of its own without an interpreter. Prints a JSON array: requests per second.
//
//     bursts REQUESTS ROUNDS ORDERED [LOG]    bursts of requests from one thread, for an engine that does nothing;
//                                             ORDERED 1: with priorities, tenants, deadlines and timeouts
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/loop.h"

namespace {

int no_step(void*, const ww_batch* batch, ww_out* out) {
  for (int i = 0; i < batch->n_seqs; ++i) out->next_token[i] = 1;
  return WW_OK;
}
int no_sync(void*) { return WW_OK; }

}  // namespace

int main(int argc, char** argv) {
  const int requests = std::atoi(argv[1]), rounds = std::atoi(argv[2]);
  const bool ordered = std::atoi(argv[3]) != 0;
  ww::SchedulerConfig config{};
  config.max_num_seqs = 64, config.max_num_batched_tokens = 512, config.max_num_queued_reqs = requests;
  config.max_num_queued_tokens = 1 << 30, config.block_size = 16, config.num_blocks = 64, config.max_model_len = 64;
  ww::LoopEngine engine;
  engine.native = {nullptr, no_step, no_sync};
  ww::Loop loop(config, &engine, 1, argc > 4 ? argv[4] : "");
  const int32_t prompt[4] = {1, 2, 3, 4};
  constexpr int64_t kHour = 3'600'000'000'000;
  ww::Events events;
  std::vector<double> done;
  for (int round = 0; round < rounds; ++round) {
    const int64_t begin = ww::now_ns();
    for (int i = 0; i < requests; ++i) {
      ww::RequestParams params{};
      params.max_tokens = 1, params.stop_token_id = -1;
      if (ordered) {
        params.priority = i % 4, params.tenant = static_cast<uint64_t>(i * 31 % 100);
        if (i % 2) params.deadline_ns = begin + kHour + i * int64_t{7919} % 1'000'000;
        params.timeout_ns = begin + kHour + i * int64_t{104'729} % 1'000'000 * 1000;
      }
      if (loop.submit(prompt, 4, params) < 1) return 1;
    }
    for (int ended = 0; ended < requests;) {
      loop.wait_events(1000);
      loop.take_events(events);
      for (const ww::EndEvent& end : events.ends) {
        if (end.outcome != ww::Outcome::finished) return 1;
        ++ended;
      }
    }
    done.push_back(requests / static_cast<double>(ww::now_ns() - begin) * 1e9);
  }
  std::printf("[");
  for (size_t i = 0; i < done.size(); ++i) std::printf("%s%.0f", i ? ", " : "", done[i]);
  std::printf("]\n");
}
