/* Finds the genesis block's nonce with wattwork.h alone; then every error a caller can make. */
#include <stdio.h>
#include <string.h>

#include "wattwork/wattwork.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      return 1;                                                                      \
    }                                                                                \
  } while (0)

static const uint8_t genesis[80] = {
    0x01, 0x00, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x3b, 0xa3, 0xed, 0xfd, 0x7a, 0x7b, 0x12, 0xb2, 0x7a, 0xc7, 0x2c, 0x3e, 0x67, 0x76, 0x8f, 0x61, 0x7f, 0xc8, 0x1b,
    0xc3, 0x88, 0x8a, 0x51, 0x32, 0x3a, 0x9f, 0xb8, 0xaa, 0x4b, 0x1e, 0x5e, 0x4a, 0x29, 0xab, 0x5f, 0x49, 0xff, 0xff,
    0x00, 0x1d, 0x1d, 0xac, 0x2b, 0x7c};

int main(void) {
  ww_work work;
  ww_rect rect = {2083236893u - 20000, 40000, 0, 1}, remaining[6];
  ww_hit hits[4];
  ww_stop stop = {0};
  ww_result result;
  const char* names[16];
  size_t n_names, i;

  CHECK(ww_abi_version() == WW_ABI_VERSION);
  CHECK(ww_isa_list(names, 16, &n_names) == WW_OK && n_names >= 1);
  CHECK(ww_isa_list(names, 0, &n_names) == WW_E_CAPACITY);
  CHECK(ww_self_test(NULL) == WW_OK);
  CHECK(ww_self_test("nonesuch") == WW_E_ISA);

  CHECK(ww_work_init(&work, genesis, 0x1fffe000) == WW_OK);
  CHECK(work.target[27] == 0xff && work.target[28] == 0);
  for (i = 0; i < n_names; ++i) {
    CHECK(ww_self_test(names[i]) == WW_OK);
    CHECK(ww_search(&work, &rect, names[i], 2, &stop, hits, 4, remaining, 6, &result) == WW_OK);
    CHECK(result.n_hits == 1 && result.n_remaining == 0 && result.hashes == 40000);
    CHECK(hits[0].nonce == 2083236893u && hits[0].version == 1 && hits[0].hash[0] == 0x6f);
    CHECK(strcmp(result.isa, names[i]) == 0);
  }
  printf("nonce %u by %s\n", (unsigned)hits[0].nonce, result.isa);

  /* Stopped beforehand: all of it remains. */
  ww_stop_set(&stop);
  CHECK(ww_search(&work, &rect, NULL, 1, &stop, hits, 4, remaining, 6, &result) == WW_OK);
  CHECK(result.hashes == 0 && result.n_remaining == 1 && memcmp(remaining, &rect, sizeof rect) == 0);
  ww_stop_clear(&stop);

  /* The array of hits bounds the search. */
  memset(work.target, 0xff, 32);
  CHECK(ww_search(&work, &rect, NULL, 1, &stop, hits, 4, remaining, 6, &result) == WW_OK);
  CHECK(result.n_hits == 4 && result.hashes == 4 && result.n_remaining == 1 && remaining[0].first == rect.first + 4);

  CHECK(ww_search(&work, &rect, "nonesuch", 1, NULL, hits, 4, remaining, 6, &result) == WW_E_ISA);
  CHECK(ww_search(&work, &rect, NULL, 5, NULL, hits, 4, remaining, 6, &result) == WW_E_CAPACITY);
  CHECK(ww_search(&work, &rect, NULL, 1, NULL, hits, 0, remaining, 6, &result) == WW_E_CAPACITY);
  CHECK(ww_search(NULL, &rect, NULL, 1, NULL, hits, 4, remaining, 6, &result) == WW_E_INVALID);
  rect.count = (uint64_t)1 << 32;
  CHECK(ww_search(&work, &rect, NULL, 1, NULL, hits, 4, remaining, 6, &result) == WW_E_INVALID);
  work.header[75] = 0;
  CHECK(ww_work_init(&work, work.header, 0) == WW_E_INVALID);
  CHECK(strlen(ww_strerror(WW_E_INVALID)) > 0);
  return 0;
}
