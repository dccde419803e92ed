// What is computed once for a row of nonces, and where the versions of a work come from.
#pragma once

#include "sha256d/kernel.h"
#include "wattwork/wattwork.h"

namespace ww {

// How many versions the mask makes: 2^popcount.
inline uint64_t version_count(uint32_t mask) { return uint64_t{1} << __builtin_popcount(mask); }

// The header's version field with number i rolled in: (version & ~mask) | deposit(i ^ extract(version)). Number 0 is
// the header's own. (BIP 320 gives miners the mask 0x1fffe000.)
WW_API uint32_t version_at(const ww_work& work, uint64_t number);

// The header with these fields put in, as 80 bytes.
WW_API void header_with(const ww_work& work, uint32_t version, uint32_t nonce, uint8_t* header80);

// The header's time field, in seconds since 1970.
uint32_t header_time(const ww_work& work);
void set_header_time(ww_work& work, uint32_t time_s);

// The target of a header's compact bits, little-endian; false where it is negative, zero or too large.
bool target_from_bits(uint32_t bits, uint8_t* target32);
uint32_t header_bits(const ww_work& work);

WW_API Row make_row(const ww_work& work, uint32_t version);
// The rows of the versions number, number + 1, ...: at most kMaxVersions of them.
WW_API Rows make_rows(const ww_work& work, uint64_t number, uint32_t versions);

}  // namespace ww
