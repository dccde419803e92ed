// ww_profile_*: tables right and wrong; what is read lies between its neighbours and nothing outside is looked at.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "../cpp/check.h"
#include "input.h"
#include "wattwork/wattwork.h"

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// Of its exact size on the heap, so that a sanitizer sees a look past it.
struct Array {
  std::unique_ptr<double[]> data;
  size_t size = 0;
  double operator[](size_t i) const { return data ? data[i] : kNaN; }
};

double any_double(Input& in) {
  const uint64_t bits = in.u64();
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

double figure(Input& in, bool wild) {
  if (wild && in.one_in(4)) return in.pick({-1.0, kInf, -kInf, -0.0, any_double(in)});
  if (in.one_in(6)) return in.pick({kNaN, 0.0, 5e-324, std::numeric_limits<double>::max()});
  return static_cast<double>(in.u32()) / 1024;
}

Array figures(Input& in, size_t n, bool wild) {
  if (in.one_in(8)) return {};
  Array a{std::make_unique<double[]>(n), n};
  for (size_t i = 0; i < n; ++i) a.data[i] = figure(in, wild);
  return a;
}

Array loads(Input& in, uint32_t modes, uint32_t levels, bool wild) {
  Array a{std::make_unique<double[]>(size_t{modes} * levels), size_t{modes} * levels};
  for (uint32_t mode = 0; mode < modes; ++mode) {
    double* row = a.data.get() + size_t{mode} * levels;
    for (uint32_t i = 0; i < levels; ++i) row[i] = static_cast<double>(in.bytes(2)) / 65535;
    std::sort(row, row + levels);
    if (wild && in.one_in(3)) row[in.below(levels)] = in.pick({kNaN, kInf, -0.1, 1.5, -0.0, any_double(in)});
  }
  return a;
}

bool are_figures(const Array& a) {
  return std::all_of(a.data.get(), a.data.get() + a.size,
                     [](double x) { return std::isnan(x) || (0 <= x && x <= std::numeric_limits<double>::max()); });
}

bool are_loads(const double* row, uint32_t levels) {
  for (uint32_t i = 0; i < levels; ++i)
    if (!(0 <= row[i] && row[i] <= 1) || (i && row[i] <= row[i - 1])) return false;
  return true;
}

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// At a level: what stands there. Between two: unknown if one of them is, or else on the line between them.
void check_read(double got, const double* figures, const double* loads, size_t level, double load) {
  if (!figures) {
    CHECK(std::isnan(got));
  } else if (load == loads[level]) {
    CHECK(same(got, figures[level]));
  } else {
    const double low = figures[level], high = figures[level + 1];
    const bool unknown = std::isnan(low) || std::isnan(high);
    const double share = (load - loads[level]) / (loads[level + 1] - loads[level]);
    CHECK(std::isnan(got) == unknown);
    if (unknown) return;
    CHECK(got >= std::min(low, high) && got <= std::max(low, high));
    CHECK(std::abs(got - (low * (1 - share) + high * share)) <= 1e-12 * std::max(low, high));
  }
}

void check_reads(Input& in, const ww_profile& p, const Array (&columns)[4], uint32_t mode, bool good) {
  const double* row = p.load + size_t{mode} * p.n_levels;
  const size_t level = in.below(p.n_levels);
  double load = row[level];
  switch (in.below(5)) {
    case 0: break;
    case 1: load = any_double(in); break;
    case 2: load = std::nextafter(load, in.one_in(2) ? 2 : -1); break;
    case 3: load = static_cast<double>(in.bytes(2)) / 65535; break;
    default:
      if (level + 1 < p.n_levels) load += (row[level + 1] - load) * static_cast<double>(in.u32()) / 0x1p32;
  }
  ww_point point{-1, -1, -1, -1};
  const int code = ww_profile_at(&p, mode, load, &point);
  CHECK(code == WW_OK || code == WW_E_INVALID);
  if (!good) return;  // nothing is promised but that it looks at nothing else
  CHECK((code == WW_OK) == (load >= row[0] && load <= row[p.n_levels - 1]));
  if (code != WW_OK) return;
  size_t at = p.n_levels - 1;
  while (row[at] > load) --at;
  const double got[] = {point.watts, point.units_per_s, point.sigma_w, point.sigma_units_per_s};
  const size_t begin = size_t{mode} * p.n_levels;
  for (size_t i = 0; i < 4; ++i)
    check_read(got[i], columns[i].data ? &columns[i].data[begin] : nullptr, row, at, load);
}

}  // namespace

void fuzz_profile(Input& in) {
  const auto modes = static_cast<uint32_t>(1 + in.below(4)), levels = static_cast<uint32_t>(1 + in.below(6));
  const bool wild = in.one_in(3);
  const Array load = loads(in, modes, levels, wild);
  const size_t n = size_t{modes} * levels, square = size_t{modes} * modes;
  const Array columns[4] = {figures(in, n, wild), figures(in, n, wild), figures(in, n, wild), figures(in, n, wild)};
  const Array switch_s = figures(in, square, wild), switch_j = figures(in, square, wild);
  ww_profile p{modes, levels, load.data.get(), columns[0].data.get(), columns[1].data.get(), columns[2].data.get(),
               columns[3].data.get(), switch_s.data.get(), switch_j.data.get()};

  bool good = are_figures(switch_s) && are_figures(switch_j);
  for (const Array& column : columns) good = good && are_figures(column);
  for (size_t mode = 0; mode < modes; ++mode) good = good && are_loads(load.data.get() + mode * levels, levels);
  CHECK(ww_profile_check(&p) == (good ? WW_OK : WW_E_INVALID));

  for (int i = 0; i < 8; ++i) check_reads(in, p, columns, static_cast<uint32_t>(in.below(modes)), good);
  ww_point point;
  CHECK(ww_profile_at(&p, modes + static_cast<uint32_t>(in.below(3)), load[0], &point) == WW_E_INVALID);
  CHECK(ww_profile_at(&p, 0, kNaN, &point) == WW_E_INVALID && ww_profile_at(&p, 0, load[0], nullptr) == WW_E_INVALID);

  const auto from = static_cast<uint32_t>(in.below(modes + 1)), to = static_cast<uint32_t>(in.below(modes + 1));
  double seconds = -1, joules = -1;
  const bool known = from < modes && to < modes;
  CHECK(ww_profile_switch(&p, from, to, &seconds, &joules) == (known ? WW_OK : WW_E_INVALID));
  if (known) CHECK(same(seconds, switch_s[from * modes + to]) && same(joules, switch_j[from * modes + to]));
  CHECK(ww_profile_switch(&p, 0, 0, nullptr, &joules) == WW_E_INVALID);
  CHECK(ww_profile_switch(&p, 0, 0, &seconds, nullptr) == WW_E_INVALID);

  CHECK(ww_profile_check(nullptr) == WW_E_INVALID && ww_profile_at(nullptr, 0, 0, &point) == WW_E_INVALID);
  ww_profile bad = p;
  bad.load = nullptr;
  CHECK(ww_profile_check(&bad) == WW_E_INVALID && ww_profile_at(&bad, 0, load[0], &point) == WW_E_INVALID);
  bad = p, bad.n_levels = 0;
  CHECK(ww_profile_check(&bad) == WW_E_INVALID && ww_profile_at(&bad, 0, load[0], &point) == WW_E_INVALID);
  bad = p, bad.n_modes = 0;
  CHECK(ww_profile_check(&bad) == WW_E_INVALID && ww_profile_at(&bad, 0, load[0], &point) == WW_E_INVALID);
  CHECK(ww_profile_switch(&bad, 0, 0, &seconds, &joules) == WW_E_INVALID);
}
