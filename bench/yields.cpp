// What bench_yield.py times, in a program of its own without an interpreter. Prints one JSON object, in nanoseconds.
//
//     yields ISA THREADS TRIALS BACK EAGER    lone requests at random moments, for an engine that does nothing; BACK 1:
//                                             with hashing behind; EAGER 1: who asks spins before it sleeps
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "runtime/loop.h"
#include "sha256d/job.h"

namespace {

int no_step(void*, const ww_batch* batch, ww_out* out) {
  for (int i = 0; i < batch->n_seqs; ++i) out->next_token[i] = 1;
  return WW_OK;
}
int no_sync(void*) { return WW_OK; }

void print(const char* name, const std::vector<int64_t>& times, const char* after) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < times.size(); ++i) std::printf("%s%lld", i ? ", " : "", static_cast<long long>(times[i]));
  std::printf("]%s", after);
}

}  // namespace

int main(int, char** argv) {
  const int threads = std::atoi(argv[2]), trials = std::atoi(argv[3]);
  const bool eager = std::atoi(argv[5]) != 0;
  ww::SchedulerConfig config{};
  config.max_num_seqs = 64, config.max_num_batched_tokens = 512, config.max_num_queued_reqs = 64;
  config.max_num_queued_tokens = 4096, config.block_size = 16, config.num_blocks = 64, config.max_model_len = 64;
  ww::LoopEngine engine;
  engine.native = {nullptr, no_step, no_sync};
  ww::Loop loop(config, &engine, threads);
  ww_work work{};
  work.version_mask = 0x1fffe000;  // and a target that nothing meets
  if (std::atoi(argv[4])) loop.set_back(std::make_shared<ww::Job>(work, ww::choose_kernel(argv[1])));
  std::mt19937 random(1);
  const int32_t prompt[3] = {1, 2, 3};
  ww::RequestParams params{};
  params.max_tokens = 1, params.stop_token_id = -1;
  std::vector<int64_t> requests, yields;
  ww::Events events;
  for (int i = 0; i < trials; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(1000 + random() % 3000));
    const int64_t begin = ww::now_ns();
    if (loop.submit(prompt, 3, params) < 1) return 1;
    do loop.wait_events(1000, eager), loop.take_events(events);
    while (events.ends.empty());
    requests.push_back(ww::now_ns() - begin);
    if (i % 1000 == 999 || i == trials - 1) {  // no more are kept
      const auto kept = loop.stats().yield_times_ns;
      yields.insert(yields.end(), kept.end() - std::min<std::ptrdiff_t>(i % 1000 + 1, std::ssize(kept)), kept.end());
    }
  }
  std::printf("{");
  print("yields", yields, ", ");
  print("requests", requests, "}\n");
}
