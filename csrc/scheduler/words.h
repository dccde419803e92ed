// What a word of the decision hash is about: its top byte.
#pragma once

#include <cstdint>

namespace ww {

constexpr uint64_t kSaysAdmitted = uint64_t{1} << 56, kSaysRejected = uint64_t{2} << 56;
constexpr uint64_t kSaysPreempted = uint64_t{3} << 56, kSaysEnded = uint64_t{4} << 56;
constexpr uint64_t kSaysReleased = uint64_t{5} << 56;
constexpr uint64_t kRowFactor = 0xC2B2AE3D27D4EB4Fu;

}  // namespace ww
