/* wattwork.h: the public C ABI of libwattwork.
 *
 * Conventions, stated once:
 *   - Arguments come in this order: what is acted on; what it is given; where the answer goes, each array followed
 *     by its capacity.
 *   - Functions that can fail return an int: WW_OK (0), or a negative WW_E_* code that ww_strerror() words.
 *   - Nothing is allocated behind the caller's back, nothing is kept after the call, and every function may be
 *     called from any thread.
 *   - Hashes and targets are 32 bytes in the order `hashlib` gives them: as a number, little-endian.
 */
#ifndef WATTWORK_H
#define WATTWORK_H

#include <stddef.h>
#include <stdint.h>

#define WW_ABI_VERSION 1
#define WW_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

enum {
  WW_OK = 0,
  WW_E_INVALID = -1,  /* an argument is out of its range */
  WW_E_ISA = -2,      /* the instruction set is unknown, or this machine lacks it */
  WW_E_CAPACITY = -3, /* an answer's array is too short */
  WW_E_FAILED = -4    /* a self-test or an engine failed */
};

WW_API uint32_t ww_abi_version(void);
WW_API const char* ww_strerror(int code); /* a static string, never NULL */

/* ---- Search: the SHA-256d of 80-byte headers -------------------------------------------------------------------- */

/* What is searched. The header's own nonce field is ignored. */
typedef struct ww_work {
  uint8_t header[80];
  uint8_t target[32];    /* a hit's hash is at most this, both as little-endian numbers */
  uint32_t version_mask; /* the version bits that may be rolled (BIP 320: 0x1fffe000); 0: none */
} ww_work;

/* Nonces [first, first + count) x version numbers [version_first, version_first + versions). Number 0 is the header's
 * own version; number i is (version & ~mask) | deposit(i ^ extract(version, mask), mask). */
typedef struct ww_rect {
  uint64_t first, count;            /* first + count <= 2^32 */
  uint64_t version_first, versions; /* their sum <= 2^(bits set in version_mask) */
} ww_rect;

typedef struct ww_hit {
  uint32_t nonce;
  uint32_t version; /* the version field as it stands in the header that was hashed */
  uint8_t hash[32];
} ww_hit;

/* One word that ends the searches that watch it: within some 100 us once it is nonzero. */
typedef struct ww_stop {
  uint32_t word;
} ww_stop;

/* How a search ended. */
typedef struct ww_result {
  uint64_t n_hits;      /* in hits[], sorted by (version number, nonce) */
  uint64_t n_remaining; /* in remaining[]: rectangles not tested; with what was tested they make up the whole */
  uint64_t hashes;      /* (nonce, version) pairs tested */
  const char* isa;      /* a static string */
} ww_result;

/* Names of the instruction sets usable here, best first, one a static string; *n_names says how many there are, also
 * where that is more than the capacity (WW_E_CAPACITY). */
WW_API int ww_isa_list(const char** names, size_t names_capacity, size_t* n_names);

/* Holds an instruction set (NULL: each usable one) against the plain scalar code. */
WW_API int ww_self_test(const char* isa);

/* From a header and its target in the header's compact bits. WW_E_INVALID if these are negative, zero or too large:
 * set work->target yourself, then. */
WW_API int ww_work_init(ww_work* work, const uint8_t header[80], uint32_t version_mask);

/* Tests every pair of the rectangle exactly once, until done, stopped (stop may be NULL), or hits_capacity (>= 1) hits
 * are found. isa NULL: $WATTWORK_ISA, or else the fastest. threads 0: as many CPUs as this process may use; at most
 * 65536. `remaining` needs room for the threads and three more, or nothing is searched (WW_E_CAPACITY). */
WW_API int ww_search(const ww_work* work, const ww_rect* rect, const char* isa, uint32_t threads, const ww_stop* stop,
                     ww_hit* hits, size_t hits_capacity, ww_rect* remaining, size_t remaining_capacity,
                     ww_result* result);

WW_API void ww_stop_set(ww_stop* stop);
WW_API void ww_stop_clear(ww_stop* stop);

/* ---- Profile: what a device does and draws at each level of each mode, and what a switch costs ----------------- */

/* The caller's arrays, row after row (C order), read where they lie. Modes are the caller's rows: idle, hash, infer,
 * mixed, say. A mode with one speed only has levels that differ in load alone. An unknown figure is NaN, and so is
 * what is interpolated from it; an array that is all unknown may be NULL. */
typedef struct ww_profile {
  uint32_t n_modes, n_levels;      /* both >= 1 */
  const double* load;              /* [n_modes][n_levels] in [0, 1], strictly ascending within a mode; never NULL */
  const double* watts;             /* [n_modes][n_levels] */
  const double* units_per_s;       /* [n_modes][n_levels] hashes, or tokens */
  const double* sigma_w;           /* [n_modes][n_levels] standard deviation of watts */
  const double* sigma_units_per_s; /* [n_modes][n_levels] standard deviation of units_per_s */
  const double* switch_s;          /* [n_modes][n_modes] seconds from mode (row) to mode (column) */
  const double* switch_j;          /* [n_modes][n_modes] joules */
} ww_profile;

/* A mode at one load. */
typedef struct ww_point {
  double watts, units_per_s, sigma_w, sigma_units_per_s;
} ww_point;

/* Whether all figures can be read: loads as stated above, nothing negative or infinite. Once for each profile: the
 * functions below look only at what they use. */
WW_API int ww_profile_check(const ww_profile* profile);

/* Interpolates linearly between the two levels about the load, standard deviations too. WW_E_INVALID for a load outside
 * the mode's levels: nothing is extrapolated. */
WW_API int ww_profile_at(const ww_profile* profile, uint32_t mode, double load, ww_point* point);

/* What going from one mode to another costs. */
WW_API int ww_profile_switch(const ww_profile* profile, uint32_t from_mode, uint32_t to_mode, double* seconds,
                             double* joules);

/* ---- Inference engines: the native form of wattwork.engines.StepEngine, over the same arrays ------------------ */

typedef struct ww_sampling {
  float temperature;        /* 0: greedy */
  float top_p;              /* in (0, 1]; 1: off */
  float repetition_penalty; /* 1: off */
  int32_t top_k;            /* 0: off */
  uint64_t seed;
} ww_sampling;

/* One step of B sequences with T tokens in all. Sequence b's tokens are [q_start[b], q_start[b+1]); they follow the
 * ctx_len[b] tokens whose keys and values are in the cache already. */
typedef struct ww_batch {
  int32_t n_tokens;           /* T */
  int32_t n_seqs;             /* B */
  int32_t max_blocks;         /* columns of block_table */
  const int32_t* tokens;      /* [T] token ids */
  const int32_t* q_start;     /* [B+1] */
  const int32_t* ctx_len;     /* [B] */
  const int32_t* block_table; /* [B, max_blocks] block ids, in the order of positions; unused columns are -1 */
  const int32_t* slot_map;    /* [T] where each token's key and value go: block * block_size + offset */
  const uint8_t* want_logits; /* [B] 1: the step ends this sequence's prompt or extends it, and a token is wanted */
  const ww_sampling* sampling; /* [B], or NULL: greedy */
} ww_batch;

typedef struct ww_out {
  int32_t* next_token; /* [B]; -1 where want_logits is 0 */
  float* logits;       /* [B, vocab], or NULL; rows where want_logits is 0 are left as they were */
} ww_out;

/* step() may be asynchronous; *out is valid after sync(). Both return WW_OK or a negative code. */
typedef struct ww_engine {
  void* self;
  int (*step)(void* self, const ww_batch* batch, ww_out* out);
  int (*sync)(void* self);
} ww_engine;

#ifdef __cplusplus
}
#endif
#endif /* WATTWORK_H */
