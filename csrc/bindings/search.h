// What a search is told and answers, between Python and C++; the same for the CPU and for GPUs.
#pragma once

#include <pybind11/stl.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "sha256d/job.h"
#include "sha256d/search.h"

namespace ww::bindings {

using RectTuple = std::tuple<uint64_t, uint64_t, uint64_t, uint64_t>;

inline RectTuple as_tuple(const Rect& r) { return {r.first, r.count, r.version_first, r.versions}; }
inline Rect as_rect(const RectTuple& t) { return {std::get<0>(t), std::get<1>(t), std::get<2>(t), std::get<3>(t)}; }
inline std::pair<uint32_t, RectTuple> as_pair(const Piece& piece) { return {piece.time, as_tuple(piece.rect)}; }

inline pybind11::bytes as_bytes(const Hit& hit) { return {reinterpret_cast<const char*>(hit.hash), sizeof hit.hash}; }

inline Work make_work(const std::string& header, const std::string& target, uint32_t version_mask) {
  Work work{};
  if (header.size() != sizeof work.header || target.size() != sizeof work.target)
    throw std::invalid_argument("A header has 80 bytes and a target 32.");
  std::memcpy(work.header, header.data(), header.size());
  std::memcpy(work.target, target.data(), target.size());
  work.version_mask = version_mask;
  return work;
}

// A rectangle that lies within the work.
inline Rect checked_rect(const Work& work, const RectTuple& rect) {
  if (!is_valid(work, as_rect(rect))) throw std::invalid_argument("The rectangle lies outside the work.");
  return as_rect(rect);
}

inline const std::atomic<uint32_t>* stop_at(uintptr_t address) {
  return as_stop(reinterpret_cast<const uint32_t*>(address));
}

// (hits, remaining, hashes)
inline auto answer_of(const Found& found) {
  std::vector<std::tuple<uint32_t, uint32_t, pybind11::bytes>> hits;
  for (const Hit& hit : found.hits) hits.emplace_back(hit.nonce, hit.version, as_bytes(hit));
  std::vector<RectTuple> remaining;
  for (const Rect& r : found.remaining) remaining.push_back(as_tuple(r));
  return std::make_tuple(std::move(hits), std::move(remaining), found.hashes);
}

inline auto answer_of(const std::vector<JobHit>& hits) {
  std::vector<std::tuple<uint32_t, uint32_t, uint32_t, pybind11::bytes>> out;
  for (const JobHit& h : hits) out.emplace_back(h.hit.nonce, h.hit.version, h.time, as_bytes(h.hit));
  return out;
}

inline auto answer_of(const std::vector<Piece>& pieces) {
  std::vector<std::pair<uint32_t, RectTuple>> out;
  for (const Piece& piece : pieces) out.push_back(as_pair(piece));
  return out;
}

}  // namespace ww::bindings
