/* A dispatch optimizer's inner loop in C: reads a profile, and picks the load with the least energy per hash. */
#include <math.h>
#include <stdio.h>

#include "wattwork/wattwork.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      return 1;                                                                      \
    }                                                                                \
  } while (0)

enum { IDLE, HASH, MODES, LEVELS = 3 };

int main(void) {
  double load[MODES][LEVELS] = {{0, 0.5, 1}, {0.2, 0.6, 1}};
  double watts[MODES][LEVELS] = {{20, 20, 20}, {60, 100, 200}};
  const double units_per_s[MODES][LEVELS] = {{0, 0, 0}, {2e7, 6e7, 1e8}};
  const double sigma_w[MODES][LEVELS] = {{1, 1, 1}, {1, 2, NAN}};
  const double switch_s[MODES][MODES] = {{0, 0.001}, {0.0001, 0}};
  ww_profile profile = {MODES, LEVELS, load[0], watts[0], units_per_s[0], sigma_w[0], NULL, switch_s[0], NULL};
  ww_point point;
  double best_load = 0, best_j_per_hash = INFINITY, seconds, joules;
  int percent;

  CHECK(ww_profile_check(&profile) == WW_OK);
  for (percent = 20; percent <= 100; percent += 5) {
    CHECK(ww_profile_at(&profile, HASH, percent / 100.0, &point) == WW_OK);
    if (point.watts / point.units_per_s < best_j_per_hash) {
      best_j_per_hash = point.watts / point.units_per_s;
      best_load = percent / 100.0;
    }
  }
  printf("load %.2f\n", best_load);

  CHECK(ww_profile_at(&profile, HASH, 0.4, &point) == WW_OK);
  CHECK(fabs(point.watts - 80) < 1e-9 && fabs(point.units_per_s - 4e7) < 1e-3 && fabs(point.sigma_w - 1.5) < 1e-12);
  CHECK(isnan(point.sigma_units_per_s));

  /* A level itself is exact, also beside an unknown one. */
  CHECK(ww_profile_at(&profile, HASH, 0.2, &point) == WW_OK && point.watts == 60);
  CHECK(ww_profile_at(&profile, HASH, 0.6, &point) == WW_OK && point.watts == 100 && point.sigma_w == 2);
  CHECK(ww_profile_at(&profile, HASH, 1, &point) == WW_OK && point.watts == 200 && isnan(point.sigma_w));
  CHECK(ww_profile_at(&profile, HASH, 0.8, &point) == WW_OK && isnan(point.sigma_w));

  CHECK(ww_profile_switch(&profile, HASH, IDLE, &seconds, &joules) == WW_OK && seconds == 0.0001 && isnan(joules));

  /* Nothing is extrapolated, and nothing is read past the table. */
  CHECK(ww_profile_at(&profile, HASH, 0.19, &point) == WW_E_INVALID);
  CHECK(ww_profile_at(&profile, HASH, 1.01, &point) == WW_E_INVALID);
  CHECK(ww_profile_at(&profile, HASH, NAN, &point) == WW_E_INVALID);
  CHECK(ww_profile_at(&profile, MODES, 0.5, &point) == WW_E_INVALID);
  CHECK(ww_profile_at(NULL, HASH, 0.5, &point) == WW_E_INVALID);
  CHECK(ww_profile_at(&profile, HASH, 0.5, NULL) == WW_E_INVALID);
  CHECK(ww_profile_switch(&profile, HASH, MODES, &seconds, &joules) == WW_E_INVALID);

  watts[1][1] = -1;
  CHECK(ww_profile_check(&profile) == WW_E_INVALID);
  watts[1][1] = INFINITY;
  CHECK(ww_profile_check(&profile) == WW_E_INVALID);
  watts[1][1] = NAN;
  CHECK(ww_profile_check(&profile) == WW_OK);
  load[1][1] = 0.2;
  CHECK(ww_profile_check(&profile) == WW_E_INVALID);
  profile.n_levels = 1; /* one level a mode: its own load alone */
  CHECK(ww_profile_check(&profile) == WW_OK);
  CHECK(ww_profile_at(&profile, IDLE, 0, &point) == WW_OK && point.watts == 20);
  CHECK(ww_profile_at(&profile, IDLE, 0.1, &point) == WW_E_INVALID);
  profile.n_levels = 0;
  CHECK(ww_profile_check(&profile) == WW_E_INVALID && ww_profile_at(&profile, IDLE, 0, &point) == WW_E_INVALID);
  CHECK(ww_profile_check(NULL) == WW_E_INVALID);
  return 0;
}
