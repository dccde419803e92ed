// An engine that does nothing, as wattwork's scheduler takes it, and that can be blocked in its step.
#include <atomic>
#include <cstdint>

#include "wattwork/wattwork.h"

namespace {

constexpr int kIds = 1 << 21;
std::atomic<int> blocked{0}, stepping{0};
uint8_t seen[kIds];  // ids executed since block(); of the loop's thread until drained

int step(void*, const ww_batch* batch, ww_out* out) {
  if (blocked) {
    stepping = 1;
    blocked.wait(1);
  }
  for (int i = 0; i < batch->n_tokens; ++i)
    if (batch->tokens[i] < kIds) seen[batch->tokens[i]] = 1;
  for (int i = 0; i < batch->n_seqs; ++i) out->next_token[i] = batch->tokens[batch->q_start[i]];
  return WW_OK;
}
int sync(void*) { return WW_OK; }

}  // namespace

extern "C" {
ww_engine engine = {nullptr, step, sync};

void block() {
  for (uint8_t& one : seen) one = 0;
  stepping = 0;
  blocked = 1;
}
void let_go() {
  blocked = 0;
  blocked.notify_all();
}
int is_blocked() { return blocked; }
int is_stepping() { return stepping; }
int was_seen(int id) { return seen[id]; }
}
