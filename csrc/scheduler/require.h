#pragma once

#include <stdexcept>
#include <string>

namespace ww {

inline void require(bool condition, const char* invariant) {
  if (!condition) throw std::logic_error(std::string("scheduler invariant broken: ") + invariant);
}

}  // namespace ww
