// Profiles of the C ABI: a table the caller owns, checked once and interpolated without a copy.
#include <algorithm>
#include <cmath>
#include <limits>

#include "wattwork/wattwork.h"

namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double at(const double* figures, size_t i) { return figures ? figures[i] : kUnknown; }

// From level i a share of the way down to the level below. A known level is taken as it is: beside an unknown one it
// must not become unknown, too. Between two the figure is unknown if one of them is, and rounding leads past neither.
double between(const double* figures, size_t i, double share) {
  const double above = at(figures, i);
  if (share == 0) return above;
  const double below = at(figures, i - 1), figure = above + share * (below - above);
  return above < below ? std::min(figure, below) : std::max(figure, below);
}

bool are_loads(const double* load, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i)
    if (!(load[i] >= 0 && load[i] <= 1 && (i == 0 || load[i - 1] < load[i]))) return false;
  return true;
}

// Unknown, or finite and not negative.
bool are_figures(const double* figures, size_t n) {
  return !figures || std::all_of(figures, figures + n, [](double x) {
    return std::isnan(x) || (x >= 0 && std::isfinite(x));
  });
}

}  // namespace

extern "C" {

int ww_profile_check(const ww_profile* p) {
  if (!p || p->n_modes == 0 || p->n_levels == 0 || !p->load) return WW_E_INVALID;
  const size_t modes = p->n_modes, levels = modes * p->n_levels;
  for (size_t mode = 0; mode < modes; ++mode)
    if (!are_loads(p->load + mode * p->n_levels, p->n_levels)) return WW_E_INVALID;
  for (const double* figures : {p->watts, p->units_per_s, p->sigma_w, p->sigma_units_per_s})
    if (!are_figures(figures, levels)) return WW_E_INVALID;
  for (const double* figures : {p->switch_s, p->switch_j})
    if (!are_figures(figures, modes * modes)) return WW_E_INVALID;
  return WW_OK;
}

int ww_profile_at(const ww_profile* p, uint32_t mode, double load, ww_point* point) {
  if (!p || !point || mode >= p->n_modes || p->n_levels == 0 || !p->load) return WW_E_INVALID;
  const double* begin = p->load + size_t{mode} * p->n_levels;
  const double* end = begin + p->n_levels;
  if (!(load >= begin[0] && load <= end[-1])) return WW_E_INVALID;
  const double* above = std::lower_bound(begin, end, load);
  const double share = *above == load ? 0 : (*above - load) / (*above - above[-1]);
  const auto i = static_cast<size_t>(above - p->load);
  *point = {between(p->watts, i, share), between(p->units_per_s, i, share), between(p->sigma_w, i, share),
            between(p->sigma_units_per_s, i, share)};
  return WW_OK;
}

int ww_profile_switch(const ww_profile* p, uint32_t from_mode, uint32_t to_mode, double* seconds, double* joules) {
  if (!p || !seconds || !joules || from_mode >= p->n_modes || to_mode >= p->n_modes) return WW_E_INVALID;
  const size_t i = size_t{from_mode} * p->n_modes + to_mode;
  *seconds = at(p->switch_s, i);
  *joules = at(p->switch_j, i);
  return WW_OK;
}

}  // extern "C"
