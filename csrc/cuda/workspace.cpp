#include "cuda/workspace.h"

#include <cstring>

namespace ww::cuda {
namespace {

constexpr size_t kFlagWords = size_t{gpu::kFlags} * gpu::kFlagStride;

Owned<Stream> stream(Context context, bool urgent) {
  constexpr unsigned kNonBlocking = 1;
  int least = 0, greatest = 0;
  driver().priorities(&least, &greatest);
  Stream made = nullptr;
  driver().create_stream(&made, kNonBlocking, urgent ? greatest : least);
  return {context, made, driver().destroy_stream};
}

Owned<Event> event(Context context) {
  constexpr unsigned kWithoutTiming = 2;
  Event made = nullptr;
  driver().create_event(&made, kWithoutTiming);
  return {context, made, driver().destroy_event};
}

Owned<Pointer> memory(Context context, size_t bytes) {
  Pointer made = 0;
  driver().allocate(&made, bytes);
  return {context, made, driver().free};
}

Owned<void*> pinned(Context context, size_t bytes) {
  void* made = nullptr;
  driver().allocate_host(&made, bytes);
  return {context, made, driver().free_host};
}

char* bytes_of(void* memory_here) { return static_cast<char*>(memory_here); }

}  // namespace

// A unit is a warp of a plain launch, or a block of a rolled one: there are fewer of these.
Workspace::Workspace(const Gpu& gpu)
    : context_(gpu.context()), units_(gpu.blocks() * gpu.shape().threads / 32), capacity_(gpu.shape().capacity),
      work_(stream(context_, false)), signal_(stream(context_, true)), ended_{event(context_), event(context_)},
      state_(memory(context_, state_bytes())), flags_(memory(context_, kFlagWords * sizeof(u32))),
      hits_(memory(context_, capacity_ * sizeof(u64))),
      rows_(memory(context_, gpu.shape().lanes * sizeof(gpu::Lane))),
      states_here_(pinned(context_, kInFlight * state_bytes())),
      flags_here_(pinned(context_, 2 * kFlagWords * sizeof(u32))),
      hits_here_(pinned(context_, capacity_ * sizeof(u64))) {
  u32* const words = static_cast<u32*>(static_cast<void*>(flags_here_));
  for (size_t i = 0; i < kFlagWords; ++i) words[i] = 0, words[kFlagWords + i] = 1;
  lower();
  driver().synchronize(signal_);
}

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
  drain();  // `rows` may go
}

void Workspace::launch(int i, Kernel kernel, u32 blocks, u32 threads, const gpu::Scan& scan) {
  gpu::Scan by_value = scan;
  Pointer rows = rows_, state = state_, slot = slots(), flags = flags_, hits = hits_;
  void* arguments[] = {&by_value, &rows, &state, &slot, &flags, &hits};
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

void Workspace::flag(u32 value) {
  const char* const words = bytes_of(flags_here_) + value * kFlagWords * sizeof(u32);
  driver().to_device(flags_, words, kFlagWords * sizeof(u32), signal_);
}

}  // namespace ww::cuda
