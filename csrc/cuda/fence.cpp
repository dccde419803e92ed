#include "cuda/fence.h"

#include <algorithm>
#include <atomic>

#include "runtime/pool.h"

namespace ww::cuda {
namespace {

using gpu::kFlags, gpu::kFlagWords, gpu::u32;

constexpr u32 kWait = 1, kWrite = 2;  // CU_STREAM_MEM_OP_WAIT_VALUE_32, ..._WRITE_VALUE_32
constexpr u32 kBits = 2;              // CU_STREAM_WAIT_VALUE_AND: passes once one of these bits is set
constexpr u32 kAfterAll = 0;          // CU_STREAM_WRITE_VALUE_DEFAULT: comes after all earlier writes
constexpr u32 kAnyTime = 1;           // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER

Pointer at(const u32& word) { return reinterpret_cast<Pointer>(&word); }

Pointer copy_of(Pointer flags, u32 i) { return flags + 4 * i * gpu::kFlagStride; }

void operate(const std::vector<MemOp>& ops, Stream stream) {
  driver().operate(stream, static_cast<unsigned>(ops.size()), ops.data(), 0);
}

}  // namespace

Fence::Fence(Context context, Stream signal)
    : context_(context), signal_(signal), flags_(make_memory(context, (kFlagWords + 2) * sizeof(u32))),
      here_(make_pinned(context, (kFronts + 1) * sizeof(u32))),
      words_(make_pinned(context, 2 * kFlagWords * sizeof(u32))),
      written_{make_event(context), make_event(context), make_event(context), make_event(context)} {
  for (int i = 0; i < kFronts; ++i) gate(i) = kOpen;
  word(kFronts) = 0;
  u32* const both = static_cast<u32*>(static_cast<void*>(words_));
  std::fill_n(both, kFlagWords, 0u);
  std::fill_n(both + kFlagWords, kFlagWords, 1u);

  const auto wait = [this] {
    for (int i = 0; i < kFronts; ++i) admit_.push_back({kWait, at(gate(i)), kOpen, kBits});
  };
  wait();
  for (u32 i = 0; i <= kFlags; ++i)  // one copy twice: the last write comes after the others, so the wait does, too
    admit_.push_back({kWrite, copy_of(flags_, i % kFlags), 0, i < kFlags ? kAnyTime : kAfterAll});
  wait();

  driver().fill(flags_, 0, kFlagWords + 1, signal_);
  driver().fill(flags_ + kFlagWords * sizeof(u32) + sizeof(u32), kOpen, 1, signal_);
  const int code = driver().operate.entry(signal_, static_cast<unsigned>(admit_.size()), admit_.data(), 0);
  if (code != kSuccess && code != kNotSupported) fail(driver(), driver().operate.name, code);
  ordered_ = code == kSuccess;
  driver().synchronize(signal_);
}

const u32* Fence::words(u32 value) const {
  return static_cast<const u32*>(static_cast<void*>(words_)) + value * kFlagWords;
}

// Of a stream with a front; -1: it has none.
int Fence::place_of(Stream stream) const {
  for (int i = 0; i < kFronts; ++i)
    if (fronts_[i].depth && fronts_[i].stream == stream) return i;
  return -1;
}

// For a front that begins: the one the stream had before, or one that nothing writes to any more.
int Fence::place_for(Stream stream) {
  for (int i = 0; i < kFronts; ++i)
    if (fronts_[i].used && fronts_[i].stream == stream) return i;
  for (int i = 0; i < kFronts; ++i) {
    const Front& front = fronts_[i];
    if (!front.depth && (!front.used || driver().query.entry(written_[i]) == kSuccess)) return i;
  }
  throw Error("more than " + std::to_string(kFronts) +
              " streams have a front before this job; end one of them, or use fewer streams.");
}

void Fence::front_begin(Stream stream) {
  std::lock_guard lock(mutex_);
  const int place = place_for(stream);
  Front& front = fronts_[place];
  if (!front.depth) {
    front = {stream, 0, true};
    write(place, kShut, stream);
  }
  ++front.depth;
}

void Fence::front_end(Stream stream) {
  std::lock_guard lock(mutex_);
  const int place = place_of(stream);
  if (place < 0) return;
  if (fronts_[place].depth == 1) write(place, kOpen, stream);
  --fronts_[place].depth;
}

void Fence::write(int place, Gate value, Stream stream) {
  if (ordered_) {
    std::vector<MemOp> ops{{kWrite, at(gate(place)), value, kAfterAll}};
    for (u32 i = 0; value == kShut && i < kFlags; ++i)
      ops.push_back({kWrite, copy_of(flags_, i), 1, i ? kAnyTime : kAfterAll});
    operate(ops, stream);
  } else {
    driver().to_host(&gate(place), flags_ + (kFlagWords + value) * sizeof(u32), sizeof(u32), stream);
    if (value == kShut) driver().to_device(flags_, words(1), kFlagWords * sizeof(u32), stream);
  }
  driver().record(written_[place], stream);
}

void Fence::admit(Stream work) {
  if (ordered_) operate(admit_, work);
  else driver().to_device(flags_, words(0), kFlagWords * sizeof(u32), work);
}

void Fence::recall() {
  std::lock_guard lock(recall_mutex_);
  hold_back();
}

// In this order: who passes a gate reads the recall word after that.
void Fence::hold_back() {
  std::atomic_ref(word(kFronts)).store(1);
  swap_gates(kShut, kLetPass);
}

// Nobody waits for the copy. Units that find no recall begun before it, and their flag is lowered by the launch after
// theirs; a copy that comes so late that it sends a launch of later away costs no more than that launch.
void Fence::raise() {
  recall();
  driver().to_device(flags_, words(1), kFlagWords * sizeof(u32), signal_);
}

void Fence::lower() {
  std::lock_guard lock(recall_mutex_);
  swap_gates(kLetPass, kShut);
  std::atomic_ref(word(kFronts)).store(0);
  free_ns_ = now_ns();
}

bool Fence::recalled() const { return std::atomic_ref(word(kFronts)).load() != 0; }

void Fence::look(int64_t now_ns) {
  const int64_t patience_ns = ordered_ ? std::chrono::nanoseconds(kPatience).count() : 0;
  std::lock_guard lock(recall_mutex_);
  const bool busy = occupied();
  if (!busy) free_ns_ = now_ns;
  if (recalled() || (busy && now_ns - free_ns_ >= patience_ns)) hold_back();
}

// Unless a front has written meanwhile.
void Fence::swap_gates(Gate from, Gate to) {
  for (int i = 0; i < kFronts; ++i) {
    u32 expected = from;
    std::atomic_ref(gate(i)).compare_exchange_strong(expected, to);
  }
}

bool Fence::occupied() const {
  for (int i = 0; i < kFronts; ++i)
    if (std::atomic_ref(gate(i)).load() != kOpen) return true;
  return false;
}

void Fence::settle() noexcept {
  const Driver* const last = driver_to_end_with();
  if (!last || last->push_context.entry(context_) != kSuccess) return;
  for (int i = 0; i < kFronts; ++i) {
    if (fronts_[i].used) last->wait.entry(written_[i]);
    fronts_[i] = {};
    gate(i) = kOpen;
  }
  Context popped;
  last->pop_context.entry(&popped);
}

}  // namespace ww::cuda
