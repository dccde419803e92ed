// A hierarchical timing wheel, exact to the nanosecond: arm and cancel in O(1), each timer moved at most ten times.
//
// Level l has 64 slots of 64^l ns. A timer lies at the level of the highest bit in which its time differs from the
// wheel's: so within a level the slots never wrap, and the first slot of the lowest level that has any comes first.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace ww {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

struct Timer {
  int64_t due_ns = 0;
  Timer *timer_prev = nullptr, *timer_next = nullptr;
  int32_t timer_slot = -1;  // -1: not armed
};

class Wheel {
 public:
  void arm(Timer& timer, int64_t due_ns) {
    timer.due_ns = due_ns;
    link(timer);
  }

  static void prefetch(const Timer& timer) {
    if (timer.timer_prev) __builtin_prefetch(timer.timer_prev, 1);
    if (timer.timer_next) __builtin_prefetch(timer.timer_next, 1);
  }

  void cancel(Timer& timer) {
    if (timer.timer_slot < 0) return;
    const auto slot = static_cast<size_t>(timer.timer_slot);
    (timer.timer_prev ? timer.timer_prev->timer_next : heads_[slot]) = timer.timer_next;
    if (timer.timer_next) timer.timer_next->timer_prev = timer.timer_prev;
    if (!heads_[slot]) occupied_[slot / kSlots] &= ~(uint64_t{1} << slot % kSlots);
    timer.timer_slot = -1;
  }

  int64_t time_ns() const { return static_cast<int64_t>(time_ns_); }  // the latest that it expired at
  // No timer is due before this; expire() then may find that the first is due later still.
  int64_t next_ns() const {
    const size_t level = lowest();
    return level < kLevels ? static_cast<int64_t>(start(level)) : kNever;
  }

  // Calls due(timer) for each that is due, in no order; they are not armed any more.
  template <class F>
  void expire(int64_t now_ns, F&& due) {
    for (int64_t next; (next = next_ns()) <= now_ns;) {
      const size_t level = lowest();
      const size_t slot = level * kSlots + static_cast<size_t>(std::countr_zero(occupied_[level]));
      time_ns_ = static_cast<uint64_t>(next);
      while (Timer* timer = heads_[slot]) {
        cancel(*timer);
        if (timer->due_ns <= now_ns) due(*timer);
        else link(*timer);
      }
    }
    time_ns_ = std::max(time_ns_, static_cast<uint64_t>(std::max<int64_t>(now_ns, 0)));
  }

 private:
  static constexpr size_t kLevels = 11, kSlots = 64, kBits = 6;

  void link(Timer& timer) {
    const uint64_t at = std::max(static_cast<uint64_t>(std::max<int64_t>(timer.due_ns, 0)), time_ns_);
    const uint64_t differs = at ^ time_ns_;
    const size_t level = differs ? (63 - static_cast<size_t>(std::countl_zero(differs))) / kBits : 0;
    const size_t index = at >> level * kBits & (kSlots - 1), slot = level * kSlots + index;
    timer.timer_slot = static_cast<int32_t>(slot);
    timer.timer_prev = nullptr;
    timer.timer_next = heads_[slot];
    if (heads_[slot]) heads_[slot]->timer_prev = &timer;
    heads_[slot] = &timer;
    occupied_[level] |= uint64_t{1} << index;
  }

  size_t lowest() const {  // level that has any; kLevels: none has
    size_t level = 0;
    while (level < kLevels && !occupied_[level]) ++level;
    return level;
  }

  // When a level's first slot begins: above it, the wheel's own time.
  uint64_t start(size_t level) const {
    const size_t above = (level + 1) * kBits;
    const uint64_t prefix = above < 64 ? time_ns_ >> above << above : 0;
    return prefix | static_cast<uint64_t>(std::countr_zero(occupied_[level])) << level * kBits;
  }

  uint64_t time_ns_ = 0;
  std::array<uint64_t, kLevels> occupied_{};  // a bit a slot
  std::array<Timer*, kLevels * kSlots> heads_{};
};

}  // namespace ww
