// The waiting requests and their order: who is next.
//
//  1. While one that waits has been overtaken `max_overtakes` times (it is aged): arrival, which overtakes nobody.
//  2. Priority, larger first.
//  3. Within a priority, the tenant with the smallest virtual token counter, then the smallest number (Sheng et al.,
//     "Fairness in Serving Large Language Models", OSDI 2024). A tenant that comes to wait again is lifted to the
//     smallest counter among those of its priority that wait; if none does, to that of the last one that did.
//  4. Within a tenant, earliest deadline first; none comes last. Then arrival (id).
//
// With one tenant, one priority and no deadlines this is first come, first served. A request is overtaken when one with
// a larger id is admitted for the first time while it waits.
//
// No operation depends on the number that wait by more than a logarithm.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <unordered_map>
#include <vector>

#include "scheduler/due.h"
#include "scheduler/heap.h"
#include "scheduler/huge.h"

namespace ww {

// The paper's weights: what a token of each kind adds to a tenant's counter.
constexpr int64_t kPromptTokenCharge = 1, kOutputTokenCharge = 2;

struct Tenant;

// What the order needs of a request.
struct Queued {
  uint64_t id = 0;
  int32_t priority = 0;
  int32_t overtakes = 0;    // kept here once it was admitted; by Overtakes before
  bool admitted = false;    // at least once
  bool waits = false;
  int64_t deadline_ns = 0;  // 0: none
  Tenant* tenant = nullptr;
  Queued *prev = nullptr, *next = nullptr;  // neighbours in its tenant's line
  size_t position = 0;                      // in Overtakes
};

// How often each request that was never admitted has been overtaken: they and those admitted before them, in order of
// arrival, and a Fenwick tree that counts the latter. The oldest has the largest count.
class Overtakes {
 public:
  void arrived(Queued& q);
  int32_t admitted(const Queued& q);  // how often it was overtaken until then
  void left(const Queued& q);         // without having been admitted
  Queued* oldest() const { return first_ < line_.size() ? line_[first_].waiting : nullptr; }
  int64_t oldest_count() const { return after_first_; }
  int64_t count(const Queued& q) const { return total_ - marks_up_to(q.position); }
  void prefetch(const Queued& q) const { __builtin_prefetch(&line_[q.position]); }
  void check() const;

 private:
  struct Entry {
    Queued* waiting;  // null: it was admitted or left
    bool mark;        // it was admitted while older ones waited
  };
  int64_t marks_up_to(size_t position) const;
  void advance();
  void squeeze();

  std::vector<Entry, HugeAllocator<Entry>> line_;
  std::vector<int32_t, HugeAllocator<int32_t>> tree_;  // over line_'s marks; its size is what line_ may grow to
  size_t first_ = 0;           // the oldest that waits
  int64_t total_ = 0;          // marks in the tree
  int64_t after_first_ = 0;    // of them after first_
};

struct Service {  // the order between tenants
  int64_t counter;
  uint64_t number;
  auto operator<=>(const Service&) const = default;
};

struct Level;

// A tenant within one priority.
struct Tenant {
  uint64_t number = 0;
  Level* level = nullptr;
  int64_t counter = 0;  // its virtual token counter
  int64_t waiting = 0, members = 0;  // of its requests; members: waiting or running
  DueHeap<Queued> deadlines;
  Queued *head = nullptr, *tail = nullptr;  // those without a deadline, in order of id
  size_t place = 0;                         // in its level's heap

  Queued* first() const { return deadlines.empty() ? head : deadlines.top(); }
  void push(Queued& q);
  void remove(Queued& q);
};

struct Level {
  int32_t priority = 0;
  int64_t members = 0;
  std::unordered_map<uint64_t, Tenant> tenants;
  Heap<Service, Tenant> waiting;  // keys may lag behind the counters, which only grow
  const Tenant* last_left = nullptr;  // the last whose requests no longer waited
  size_t forget_at = 16;

  Tenant& first();  // of those that wait
  int64_t floor();  // what a tenant that comes to wait is lifted to
  Tenant& tenant(uint64_t number);
};

class WaitingQueue {
 public:
  explicit WaitingQueue(int32_t max_overtakes) : max_overtakes_(max_overtakes) {}

  void join(Queued& q, uint64_t tenant);  // a new request, which will wait, run and end
  void leave(Queued& q);                  // it has ended, and does not wait
  void push(Queued& q);                   // it waits: it is new, or was preempted
  void admit(Queued& q);                  // it waits no more: it runs
  void drop(Queued& q);                   // it waits no more: it ended

  void prefetch(const Queued& q) const {  // what drop() will touch
    if (q.prev) __builtin_prefetch(q.prev, 1);
    if (q.next) __builtin_prefetch(q.next, 1);
    if (!q.admitted) overtakes_.prefetch(q);
  }

  Queued* head();
  int32_t head_priority() const {  // without a look at the tenants
    return any_aged() ? oldest()->priority : waiting_levels_.begin()->first;
  }
  Queued* oldest() const;  // lowest id
  int64_t size() const { return size_; }
  int64_t tenants() const {  // remembered
    int64_t n = 0;
    for (const auto& [priority, level] : levels_) n += static_cast<int64_t>(level.tenants.size());
    return n;
  }
  bool aged(const Queued& q) const { return overtakes(q) >= max_overtakes_; }
  int64_t overtakes(const Queued& q) const {
    return q.admitted || !q.waits ? q.overtakes : overtakes_.count(q);
  }
  // Throws std::logic_error. `members`: all that joined and have not left. `bound`: how far counters may be apart.
  void check(const std::vector<const Queued*>& members, int64_t bound);

 private:
  void unlink(Queued& q);
  bool any_aged() const { return preempted_aged_ > 0 || overtakes_.oldest_count() >= max_overtakes_; }
  bool before(const Queued& a, const Queued& b) const;

  int32_t max_overtakes_;
  int64_t size_ = 0;
  int64_t admitted_by_age_ = 0;  // in which the counters had no say
  std::unordered_map<int32_t, Level> levels_;
  std::map<int32_t, Level*, std::greater<>> waiting_levels_;
  Overtakes overtakes_;
  std::vector<Queued*> preempted_;  // those that wait again: few
  int64_t preempted_aged_ = 0;      // of them
};

}  // namespace ww
