// Which item has an id. Each has its place by the id's low bits, so that ids that follow one another lie side by side;
// the few that find their place taken, as beside one that stays very long, lie in a map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "scheduler/huge.h"

namespace ww {

template <class Item>  // has an `id` above 0
class IdTable {
 public:
  size_t size() const { return size_; }

  Item* find(uint64_t id) const {
    const Slot& slot = slots_[id & (slots_.size() - 1)];
    if (slot.id == id) return slot.item;
    const auto found = crowded_.find(id);
    return found == crowded_.end() ? nullptr : found->second;
  }

  void insert(Item* item) {
    if (++size_ * 2 > slots_.size()) grow();
    place(item);
  }

  void erase(uint64_t id) {
    Slot& slot = slots_[id & (slots_.size() - 1)];
    if (slot.id == id) slot = {};
    else crowded_.erase(id);
    --size_;
  }

  template <class F>
  void each(F&& f) const {
    for (const Slot& slot : slots_)
      if (slot.item) f(*slot.item);
    for (const auto& [id, item] : crowded_) f(*item);
  }

 private:
  struct Slot {
    uint64_t id = 0;
    Item* item = nullptr;
  };

  void place(Item* item) {
    Slot& slot = slots_[item->id & (slots_.size() - 1)];
    if (slot.item) crowded_.emplace(item->id, item);
    else slot = {item->id, item};
  }
  void grow() {
    std::vector<Item*> items;
    each([&](Item& item) { items.push_back(&item); });
    slots_.assign(2 * slots_.size(), {});
    crowded_.clear();
    for (Item* item : items) place(item);
  }

  std::vector<Slot, HugeAllocator<Slot>> slots_{64};
  std::unordered_map<uint64_t, Item*> crowded_;
  size_t size_ = 0;
};

}  // namespace ww
