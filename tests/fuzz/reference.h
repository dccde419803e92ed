// What wattwork.h says, written a second time with nothing of the library's: SHA-256d, version rolling, compact bits.
#pragma once

#include <array>
#include <cstdint>

namespace reference {

using Hash = std::array<uint8_t, 32>;

Hash sha256d(const uint8_t header[80], uint32_t version, uint32_t nonce);
bool at_most(const uint8_t hash[32], const uint8_t target[32]);

uint64_t version_count(uint32_t mask);
uint32_t version_at(const uint8_t header[80], uint32_t mask, uint64_t number);
// The number of a version; false where the mask does not make it.
bool number_of(const uint8_t header[80], uint32_t mask, uint32_t version, uint64_t& number);

// The header's target; false where its bits are negative, zero or too large.
bool target_of(const uint8_t header[80], uint8_t target[32]);

}  // namespace reference
