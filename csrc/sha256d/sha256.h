// SHA-256 (FIPS 180-4) in plain scalar code: what every hit is checked with, and what prepares the fast kernels.
#pragma once

#include <cstdint>

#include "wattwork/wattwork.h"

namespace ww {

// One compression (FIPS 180-4, 6.2.2): state[8] takes in the block's 16 big-endian words.
void sha256_compress(uint32_t* state, const uint32_t* words);

// SHA-256 of the SHA-256 of an 80-byte header, as bytes in the order hashlib gives them.
WW_API void sha256d(const uint8_t* header80, uint8_t* hash32);

// Whether the hash, read as a little-endian number, is at most the target (32 bytes, little-endian too).
WW_API bool meets_target(const uint8_t* hash32, const uint8_t* target32);

}  // namespace ww
