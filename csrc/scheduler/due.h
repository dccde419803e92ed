// Those of a tenant's waiting requests that have a deadline, earliest first.
//
// A binary heap in which a request that leaves from anywhere but the top stays behind, and is passed over later: one of
// a million is then left without a look at the others. What stayed behind is cleared away before it is the most part.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace ww {

template <class Item>  // has `id`, `deadline_ns` and `waits`; its memory outlives the heap, whoever may use it by then
class DueHeap {
 public:
  bool empty() const { return live_ == 0; }
  Item* top() const { return nodes_.front().item; }

  void push(Item& item) {
    nodes_.push_back({item.deadline_ns, item.id, &item});
    std::push_heap(nodes_.begin(), nodes_.end(), std::greater<>());
    ++live_;
  }

  // After its `waits` was cleared.
  void left(const Item&) {
    --live_;
    while (!nodes_.empty() && !nodes_.front().stands()) {
      std::pop_heap(nodes_.begin(), nodes_.end(), std::greater<>());
      nodes_.pop_back();
    }
    if (nodes_.size() > 2 * live_ + 64) clear_away();
  }

 private:
  struct Node {
    int64_t deadline_ns;
    uint64_t id;
    Item* item;
    auto operator<=>(const Node&) const = default;
    bool stands() const { return item->id == id && item->waits; }
  };

  // One that left and came again may be here twice.
  void clear_away() {
    std::erase_if(nodes_, [](const Node& node) { return !node.stands(); });
    std::sort(nodes_.begin(), nodes_.end());
    nodes_.erase(std::unique(nodes_.begin(), nodes_.end()), nodes_.end());
  }

  std::vector<Node> nodes_;
  size_t live_ = 0;
};

}  // namespace ww
