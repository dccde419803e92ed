// Which item has an id: a hash table with open addressing, its hash the id's low bits. Ids that follow one another never
// collide, and a look-up touches one cache line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ww {

template <class Item>  // has an `id`
class IdTable {
 public:
  size_t size() const { return size_; }

  Item* find(uint64_t id) const {
    const Slot& slot = slots_[place(id)];
    return slot.item;
  }

  void insert(Item* item) {
    if (++size_ * 2 > slots_.size()) grow();
    slots_[place(item->id)] = {item->id, item};
  }

  // What follows moves up, so that no search ends too early.
  void erase(uint64_t id) {
    size_t hole = place(id);
    --size_;
    for (size_t i = next(hole); slots_[i].item; i = next(i)) {
      const size_t home = slots_[i].id & mask();
      if (((i - home) & mask()) < ((i - hole) & mask())) continue;  // it lies between its home and the hole's other side
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole] = {};
  }

  template <class F>
  void each(F&& f) const {
    for (const Slot& slot : slots_)
      if (slot.item) f(*slot.item);
  }

 private:
  struct Slot {
    uint64_t id = 0;
    Item* item = nullptr;
  };

  size_t mask() const { return slots_.size() - 1; }
  size_t next(size_t i) const { return (i + 1) & mask(); }
  size_t place(uint64_t id) const {  // where it is, or would go
    size_t i = id & mask();
    while (slots_[i].item && slots_[i].id != id) i = next(i);
    return i;
  }
  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.item) slots_[place(slot.id)] = slot;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(64);
  size_t size_ = 0;
};

}  // namespace ww
