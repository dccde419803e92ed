#include "cuda/workspace.h"

#include <chrono>
#include <cstring>
#include <thread>

namespace ww::cuda {
namespace {

char* bytes_of(void* memory_here) { return static_cast<char*>(memory_here); }

}  // namespace

// A unit is a warp of a plain launch, or a block of a rolled one: there are fewer of these.
Workspace::Workspace(const Gpu& gpu)
    : context_(gpu.context()), units_(gpu.blocks() * gpu.shape().threads / 32), capacity_(gpu.shape().capacity),
      work_(make_stream(context_, false)), signal_(make_stream(context_, true)), fence_(context_, signal_),
      ended_{make_event(context_), make_event(context_)}, state_(make_memory(context_, state_bytes())),
      hits_(make_memory(context_, capacity_ * sizeof(u64))),
      rows_(make_memory(context_, gpu.shape().lanes * sizeof(gpu::Lane))),
      states_here_(make_pinned(context_, kInFlight * state_bytes())),
      hits_here_(make_pinned(context_, capacity_ * sizeof(u64))) {}

Workspace::~Workspace() {
  const Driver* const last = driver_to_end_with();
  if (!last || last->push_context.entry(context_) != kSuccess) return;
  Context popped;
  for (const Stream queue : {Stream{work_}, Stream{signal_}}) last->synchronize.entry(queue);
  last->pop_context.entry(&popped);
}

void Workspace::begin(const std::vector<gpu::Lane>& rows) {
  driver().fill(state_, 0, state_bytes() / sizeof(u32), work_);
  driver().to_device(rows_, rows.data(), rows.size() * sizeof(gpu::Lane), work_);
  driver().synchronize(work_);  // `rows` may go
}

void Workspace::launch(int i, Kernel kernel, u32 blocks, u32 threads, const gpu::Scan& scan) {
  gpu::Scan by_value = scan;
  by_value.recall = fence_.recall_word();
  Pointer rows = rows_, state = state_, slot = slots(), flags = fence_.flags(), hits = hits_;
  void* arguments[] = {&by_value, &rows, &state, &slot, &flags, &hits};
  fence_.admit(work_);
  driver().launch(kernel, blocks, 1, 1, threads, 1, 1, 0, work_, arguments, nullptr);
  driver().to_host(bytes_of(states_here_) + static_cast<size_t>(i) * state_bytes(), state_, state_bytes(), work_);
  driver().record(ended_[i], work_);
}

bool Workspace::passed(int i) const {
  const int code = driver().query.entry(ended_[i]);
  if (code != kSuccess && code != kNotReady) fail(driver(), driver().query.name, code);
  return code == kSuccess;
}

Snapshot Workspace::snapshot(int i) const {
  Snapshot out;
  const char* const from = bytes_of(states_here_) + static_cast<size_t>(i) * state_bytes();
  std::memcpy(&out.account, from, sizeof out.account);
  out.slots.resize(units_);
  std::memcpy(out.slots.data(), from + sizeof out.account, units_ * sizeof(u64));
  return out;
}

std::vector<u64> Workspace::candidates(u64 from, u64 to) {
  std::vector<u64> out(to - from);
  if (out.empty()) return out;
  driver().to_host(hits_here_, hits_ + from * sizeof(u64), out.size() * sizeof(u64), signal_);
  driver().synchronize(signal_);
  std::memcpy(out.data(), hits_here_, out.size() * sizeof(u64));
  return out;
}

void Workspace::abandon() {
  fence_.raise();
  int code;
  while ((code = driver().query_stream.entry(work_)) == kNotReady) {
    fence_.recall();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  if (code != kSuccess) fail(driver(), driver().query_stream.name, code);
}

}  // namespace ww::cuda
