// A binary min-heap whose items know their places in it (`item->place`), so that any of them can leave.
//
// O(log n).
#pragma once

#include <cstddef>
#include <vector>

namespace ww {

template <class Key, class Item>
class Heap {
 public:
  struct Node {
    Key key;
    Item* item;
  };

  bool empty() const { return nodes_.empty(); }
  const Node& top() const { return nodes_.front(); }

  void push(const Key& key, Item* item) {
    nodes_.push_back({key, item});
    settle(nodes_.size() - 1);
  }
  void remove(const Item* item) {
    const size_t at = item->place;
    const Node last = nodes_.back();
    nodes_.pop_back();
    if (at == nodes_.size()) return;
    nodes_[at] = last;
    settle(at);
  }
  void rekey(const Item* item, const Key& key) {
    nodes_[item->place].key = key;
    settle(item->place);
  }

 private:
  void put(size_t at, const Node& node) {
    nodes_[at] = node;
    node.item->place = at;
  }
  void settle(size_t at) {
    const Node node = nodes_[at];
    for (size_t up; at > 0 && node.key < nodes_[up = (at - 1) / 2].key; at = up) put(at, nodes_[up]);
    for (size_t down; (down = 2 * at + 1) < nodes_.size(); at = down) {
      if (down + 1 < nodes_.size() && nodes_[down + 1].key < nodes_[down].key) ++down;
      if (!(nodes_[down].key < node.key)) break;
      put(at, nodes_[down]);
    }
    put(at, node);
  }

  std::vector<Node> nodes_;
};

}  // namespace ww
