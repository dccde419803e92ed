#include "scheduler/queue.h"

#include <algorithm>

#include "scheduler/require.h"

namespace ww {

// ---- Overtakes ---------------------------------------------------------------------------------------------------

void Overtakes::arrived(Queued& q) {
  if (line_.size() == tree_.size()) squeeze();
  q.position = line_.size();
  line_.push_back({&q, false});
}

int32_t Overtakes::admitted(const Queued& q) {
  const auto n = static_cast<int32_t>(count(q));
  if (q.position != first_) {  // else nobody is left that it overtook
    line_[q.position].mark = true;
    for (size_t i = q.position + 1; i <= tree_.size(); i += i & -i) ++tree_[i - 1];
    ++total_;
    ++after_first_;
  }
  left(q);
  return n;
}

void Overtakes::left(const Queued& q) {
  line_[q.position].waiting = nullptr;
  if (q.position == first_) advance();
}

int64_t Overtakes::marks_up_to(size_t position) const {
  if (position == first_) return total_ - after_first_;
  int64_t n = 0;
  for (size_t i = position + 1; i > 0; i -= i & -i) n += tree_[i - 1];
  return n;
}

void Overtakes::advance() {
  for (; first_ < line_.size() && !line_[first_].waiting; ++first_) after_first_ -= line_[first_].mark;
}

// Keeps those that wait and the marks after the oldest of them; with room for as many again, so that each entry pays
// for a few moves at most.
void Overtakes::squeeze() {
  size_t kept = 0;
  for (size_t i = first_; i < line_.size(); ++i) {
    if (!line_[i].waiting && !line_[i].mark) continue;
    if (line_[i].waiting) line_[i].waiting->position = kept;
    line_[kept++] = line_[i];
  }
  line_.resize(kept);
  tree_.assign(std::max<size_t>(256, 4 * kept), 0);
  for (size_t i = 0; i < kept; ++i) tree_[i] = line_[i].mark;
  for (size_t i = 1; i <= tree_.size(); ++i)
    if (const size_t up = i + (i & -i); up <= tree_.size()) tree_[up - 1] += tree_[i - 1];
  first_ = 0;
  total_ = after_first_;
}

void Overtakes::check() const {
  int64_t marks = 0;
  for (size_t i = line_.size(); i-- > first_;) {
    if (line_[i].waiting) {
      require(line_[i].waiting->position == i && !line_[i].mark, "who waits is in the line");
      require(count(*line_[i].waiting) == marks, "overtakes are counted");
    }
    marks += line_[i].mark;
  }
  require(marks == after_first_, "the oldest's overtakes are counted");
  require(first_ == line_.size() || line_[first_].waiting, "the line begins with one that waits");
}

// ---- Tenants -----------------------------------------------------------------------------------------------------

// A new arrival belongs at the tail. One that was preempted passes only others that were: those of a tenant are
// admitted in order.
void Tenant::push(Queued& q) {
  ++waiting;
  if (q.deadline_ns) return deadlines.push(q);
  Queued* after = tail;
  if (after && q.id < after->id)
    for (after = nullptr; (after ? after->next : head)->id < q.id;) after = after ? after->next : head;
  q.prev = after;
  q.next = after ? after->next : head;
  (q.prev ? q.prev->next : head) = &q;
  (q.next ? q.next->prev : tail) = &q;
}

void Tenant::remove(Queued& q) {
  --waiting;
  if (q.deadline_ns) return deadlines.left(q);
  (q.prev ? q.prev->next : head) = q.next;
  (q.next ? q.next->prev : tail) = q.prev;
  q.prev = q.next = nullptr;
}

Tenant& Level::first() {
  for (;;) {
    const auto [key, tenant] = waiting.top();
    if (key.counter == tenant->counter) return *tenant;
    waiting.rekey(tenant, {tenant->counter, tenant->number});
  }
}

int64_t Level::floor() {
  if (!waiting.empty()) return first().counter;
  return last_left ? last_left->counter : 0;
}

// Those without requests whose counters are not above the floor are forgotten: they would be lifted to it anyway.
Tenant& Level::tenant(uint64_t number) {
  if (tenants.size() >= forget_at) {
    const int64_t least = floor();
    std::erase_if(tenants, [&](const auto& item) {
      const Tenant& t = item.second;
      return t.members == 0 && t.counter <= least && &t != last_left;
    });
    forget_at = 2 * tenants.size() + 16;
  }
  Tenant& t = tenants[number];
  t.number = number;
  t.level = this;
  return t;
}

// ---- The queue ---------------------------------------------------------------------------------------------------

void WaitingQueue::join(Queued& q, uint64_t tenant) {
  Level& level = levels_[q.priority];
  level.priority = q.priority;
  ++level.members;
  q.tenant = &level.tenant(tenant);
  ++q.tenant->members;
}

void WaitingQueue::leave(Queued& q) {
  --q.tenant->members;
  if (--q.tenant->level->members == 0) levels_.erase(q.priority);
}

void WaitingQueue::push(Queued& q) {
  Tenant& tenant = *q.tenant;
  Level& level = *tenant.level;
  if (tenant.waiting == 0) {
    tenant.counter = std::max(tenant.counter, level.floor());
    if (level.waiting.empty()) waiting_levels_.emplace(level.priority, &level);
    level.waiting.push({tenant.counter, tenant.number}, &tenant);
  }
  q.waits = true;
  tenant.push(q);
  ++size_;
  if (!q.admitted) return overtakes_.arrived(q);
  preempted_.push_back(&q);
  preempted_aged_ += aged(q);
}

void WaitingQueue::unlink(Queued& q) {
  Tenant& tenant = *q.tenant;
  Level& level = *tenant.level;
  q.waits = false;
  tenant.remove(q);
  if (tenant.waiting == 0) {
    level.waiting.remove(&tenant);
    level.last_left = &tenant;
    if (level.waiting.empty()) waiting_levels_.erase(level.priority);
  }
  --size_;
  if (!q.admitted) return;
  preempted_.erase(std::find(preempted_.begin(), preempted_.end(), &q));
  preempted_aged_ -= aged(q);
}

void WaitingQueue::admit(Queued& q) {
  admitted_by_age_ += any_aged();
  unlink(q);
  if (q.admitted) return;
  q.overtakes = overtakes_.admitted(q);
  q.admitted = true;
  for (Queued* other : preempted_)
    if (other->id < q.id) preempted_aged_ += ++other->overtakes == max_overtakes_;
}

void WaitingQueue::drop(Queued& q) {
  unlink(q);
  if (!q.admitted) overtakes_.left(q);
}

Queued* WaitingQueue::head() {
  if (size_ == 0) return nullptr;
  return any_aged() ? oldest() : waiting_levels_.begin()->second->first().first();
}

Queued* WaitingQueue::oldest() const {
  Queued* first = overtakes_.oldest();
  for (Queued* q : preempted_)
    if (!first || q->id < first->id) first = q;
  return first;
}

// The whole order in one place, for check().
bool WaitingQueue::before(const Queued& a, const Queued& b) const {
  if (any_aged()) return a.id < b.id;
  if (a.priority != b.priority) return a.priority > b.priority;
  const Service service_a{a.tenant->counter, a.tenant->number}, service_b{b.tenant->counter, b.tenant->number};
  if (service_a != service_b) return service_a < service_b;
  if (a.deadline_ns != b.deadline_ns) return a.deadline_ns && (!b.deadline_ns || a.deadline_ns < b.deadline_ns);
  return a.id < b.id;
}

void WaitingQueue::check(const std::vector<const Queued*>& members, int64_t bound) {
  const Queued* first = nullptr;
  int64_t waiting = 0, preempted = 0, preempted_aged = 0;
  std::map<const Tenant*, int64_t> of_tenant;
  for (const Queued* q : members) {
    ++of_tenant[q->tenant];
    require(overtakes(*q) <= max_overtakes_, "nobody is overtaken more than max_overtakes times");
    if (!q->waits) continue;
    ++waiting;
    preempted += q->admitted;
    preempted_aged += q->admitted && aged(*q);
    if (!first || before(*q, *first)) first = q;
  }
  require(waiting == size_ && preempted == static_cast<int64_t>(preempted_.size()), "the queue adds up");
  require(preempted_aged == preempted_aged_, "the aged are known");
  require(head() == first, "the head is the first of the order");
  overtakes_.check();
  size_t waiting_levels = 0;
  for (auto& [priority, level] : levels_) {
    int64_t total = 0;
    waiting_levels += !level.waiting.empty();
    const int64_t least = level.floor();
    for (auto& [number, tenant] : level.tenants) {
      total += tenant.members;
      require(tenant.members == of_tenant[&tenant], "a tenant's requests are counted");
      require(tenant.waiting == 0 || tenant.counter >= least, "who waits is not below the floor");
      require(admitted_by_age_ > 0 || tenant.counter - least <= bound, "tenants' counters stay together");
      for (const Queued* q = tenant.head; q && q->next; q = q->next)
        require(q->id < q->next->id && q->next->prev == q, "a tenant's line is first in, first out");
    }
    require(total == level.members && total > 0, "a priority's requests are counted");
  }
  require(waiting_levels == waiting_levels_.size(), "the priorities that wait are known");
}

}  // namespace ww
