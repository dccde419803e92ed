#include "decoder/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "decoder/philox.h"

namespace ww::decoder {
namespace {

// All scaled logits after penalty and temperature, in double.
std::vector<double> scaled(const float* logits, int vocab, const ww_sampling& s, const int32_t* history, int n) {
  std::vector<double> x(logits, logits + vocab);
  if (s.repetition_penalty != 1) {
    std::vector<int32_t> distinct(history, history + n);
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    const double penalty = s.repetition_penalty;
    for (int32_t id : distinct) {
      double& v = x[static_cast<size_t>(id)];
      v = v > 0 ? v / penalty : v * penalty;
    }
  }
  for (double& v : x) v /= s.temperature;
  return x;
}

// The ids kept by top_k and top_p, ascending. Of equal logits the lower id goes first.
std::vector<int32_t> kept(const std::vector<double>& x, const ww_sampling& s) {
  std::vector<int32_t> ids(x.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto before = [&](int32_t a, int32_t b) {
    const double u = x[static_cast<size_t>(a)], v = x[static_cast<size_t>(b)];
    return u != v ? u > v : a < b;
  };
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < ids.size()) {
    std::nth_element(ids.begin(), ids.begin() + (s.top_k - 1), ids.end(), before);
    ids.resize(static_cast<size_t>(s.top_k));
  }
  if (s.top_p < 1) {
    std::sort(ids.begin(), ids.end(), before);
    const double top = x[static_cast<size_t>(ids[0])];
    std::vector<double> cumulative(ids.size());
    double sum = 0;
    for (size_t i = 0; i < ids.size(); ++i) cumulative[i] = sum += std::exp(x[static_cast<size_t>(ids[i])] - top);
    // The shortest prefix that holds top_p of the whole.
    const double wanted = static_cast<double>(s.top_p) * sum;
    const auto end = std::lower_bound(cumulative.begin(), cumulative.end(), wanted);
    ids.resize(std::min(ids.size(), static_cast<size_t>(end - cumulative.begin()) + 1));
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

int32_t greedy(const float* logits, int vocab) {
  int32_t best = 0;
  float top = -std::numeric_limits<float>::infinity();
  for (int32_t i = 0; i < vocab; ++i)
    if (logits[i] > top) top = logits[i], best = i;
  return best;
}

int32_t sample(const float* logits, int vocab, const ww_sampling& s, const int32_t* history, int n_history) {
  for (int i = 0; i < vocab; ++i)
    if (!std::isfinite(logits[i])) return greedy(logits, vocab);  // no distribution; and NaN has no order to sort by
  const std::vector<double> x = scaled(logits, vocab, s, history, n_history);
  const std::vector<int32_t> ids = kept(x, s);
  double top = x[static_cast<size_t>(ids[0])], sum = 0;
  for (int32_t id : ids) top = std::max(top, x[static_cast<size_t>(id)]);
  std::vector<double> cumulative;
  cumulative.reserve(ids.size());
  for (int32_t id : ids) cumulative.push_back(sum += std::exp(x[static_cast<size_t>(id)] - top));
  const Philox4 draw = philox4x32(s.seed, static_cast<uint64_t>(n_history), 0);
  const double u = (static_cast<double>(draw.word[0] >> 5) * 0x1p26 + static_cast<double>(draw.word[1] >> 6)) * 0x1p-53;
  const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), u * sum);
  return ids[std::min(ids.size() - 1, static_cast<size_t>(at - cumulative.begin()))];
}

}  // namespace ww::decoder
