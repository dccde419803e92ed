// The bytes of one input, taken from the front as numbers; zeros where there are no more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  uint64_t bytes(int n) {
    uint64_t x = 0;
    for (int i = 0; i < n; ++i) x = x << 8 | (at_ < end_ ? *at_++ : 0);
    return x;
  }
  uint8_t u8() { return static_cast<uint8_t>(bytes(1)); }
  uint32_t u32() { return static_cast<uint32_t>(bytes(4)); }
  uint64_t u64() { return bytes(8); }
  uint64_t below(uint64_t n) { return (n <= 1 ? 0 : bytes(n <= 256 ? 1 : n <= 65536 ? 2 : 8) % n); }
  bool one_in(uint64_t n) { return below(n) == n - 1; }  // zeros say no: a short input is a plain one
  template <class T> T pick(std::initializer_list<T> choices) { return choices.begin()[below(choices.size())]; }

 private:
  const uint8_t *at_, *end_;
};

void fuzz_search(Input& in);
void fuzz_profile(Input& in);
void fuzz_names(Input& in);
