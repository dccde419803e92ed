// What the machine is held to: kernels whose results C++ defines, and NumPy says again (tests/test_sass_machine.py).

typedef unsigned int u32;
typedef unsigned long long u64;

// out[k * threads + t]: the k-th operation on the t-th inputs. Shifts, selectors and divisors come at run time.
extern "C" __global__ void operations(const u32* a, const u32* b, const u32* c, const u64* wide, u64* out) {
  const u32 threads = gridDim.x * blockDim.x, t = blockIdx.x * blockDim.x + threadIdx.x;
  const u32 x = a[t], y = b[t], z = c[t];
  const u64 p = wide[t], q = wide[threads + t];
  u64* to = out + t;
  auto put = [&](u64 value) { *to = value, to += threads; };
  put(x + y + z);
  put(p + q);
  put(p - q);
  put(u64(x) * y + p);
  put(u64((long long)(int)x * (int)y));
  put(__umulhi(x, y) + z);
  put(__umul64hi(p, q));
  put(p * q);
  put((x & y) ^ (~x & z));
  put((x & y) | (z & (x | y)));
  put(__funnelshift_l(x, y, z));
  put(__funnelshift_r(x, y, z));
  put(__funnelshift_lc(x, y, z & 63));
  put(__funnelshift_rc(x, y, z & 63));
  put(p << (z & 63));
  put(p >> (z & 63));
  put(u64((long long)p >> (z & 63)));
  put(x << (z & 31) | y >> (x & 31));
  put(u32((int)y >> (z & 31)));
  put(__byte_perm(x, y, z));
  u32 permuted;  // as __byte_perm, but with the selector's sign bits
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(permuted) : "r"(x), "r"(y), "r"(z));
  put(permuted);
  put(__popc(x) + 100 * __clz(y) + 10000 * __ffs(z));
  put(__popcll(p) + 100 * __clzll(q));
  put(__brev(x));
  put(p < q ? x : y);
  put((long long)p < (long long)q ? x : y);
  put((p <= q) + 2 * (p == q) + 4 * (x != y) + 8 * ((int)x < (int)y) + 16 * (x >= y));
  put(min(x, y));
  put(u32(max((int)x, (int)y)));
  put(u32(abs((int)x)));
  put(x / (y | 1));
  put(x % (z >> 20 | 1));
  put(p / (q >> 40 | 1));
  put(x * 8 + y);
  put((p << 3) + q);
  put((p >> 29) - q);
  put(((x < y) != (y < z)) & ((z < x) | (x == 7)));
}

// A reversal in each warp by shuffles; ballots; a sum over the block through shared memory, as vectors; counters.
extern "C" __global__ void exchange(const u32* in, u32* out, u32* ballots, u32* sums, u64* counters) {
  __shared__ uint4 row[64];
  const u32 t = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  const u32 x = in[t];
  u32 reversed = __shfl_sync(~0u, x, 31 - lane);
  u32 scan = x;
#pragma unroll 1
  for (u32 by = 1; by < 32; by *= 2) {
    const u32 before = __shfl_up_sync(~0u, scan, by);
    if (lane >= by) scan += before;
  }
  const u32 across = __shfl_xor_sync(~0u, x, 16) ^ __shfl_down_sync(~0u, x, 5, 8);
  out[t] = reversed ^ scan * 3 ^ across;
  const u32 votes = __ballot_sync(~0u, x & 1) + __all_sync(~0u, x > 5) + __any_sync(~0u, x < 9);
  if (lane == 0) ballots[t / 32] = votes;
  if (threadIdx.x < 64) row[threadIdx.x] = make_uint4(x, x >> 8, x >> 16, x >> 24);
  __syncthreads();
  u32 sum = 0;
#pragma unroll 4
  for (u32 i = 0; i < min(64u, blockDim.x); ++i) {
    const uint4 v = row[(i + threadIdx.x) % min(64u, blockDim.x)];
    sum += v.x ^ v.y ^ v.z ^ v.w;
  }
  sums[t] = sum + __syncthreads_or(x == 12345);
  if (x % 3 == 0) atomicAdd(&counters[0], u64(x) << 20);
  if (x % 5 == 0) counters[2 + atomicAdd(&counters[1], 1)] = x;
  if (lane % 7 == 3) atomicMax(&counters[1 + 1 + blockDim.x * gridDim.x], u64(x) << 9);
}

// Atomics on shared memory: a sum, an exchange, a swap that one thread wins, toggled bits.
extern "C" __global__ void atomics(u32* taken, u32* won, u32* left) {
  __shared__ u32 cell[4];
  const u32 t = threadIdx.x;
  if (t < 4) cell[t] = 0;
  __syncthreads();
  atomicAdd(&cell[0], t * t);
  taken[t] = atomicExch(&cell[1], t + 1);
  won[t] = atomicCAS(&cell[2], 0, t + 1);
  atomicXor(&cell[3], 1u << t % 31);
  __syncthreads();
  if (t < 4) left[t] = cell[t];
}

// Divergence: Collatz steps of each number, with a call in a loop that lanes leave one by one.
__device__ __noinline__ u32 step(u32 x) { return x % 2 ? 3 * x + 1 : x / 2; }

extern "C" __global__ void diverge(const u32* in, u32* out, u32 bound) {
  const u32 t = blockIdx.x * blockDim.x + threadIdx.x;
  u32 x = in[t], steps = 0;
  if (x == 0) return;
  while (x != 1) {
    x = step(x);
    if (++steps == bound) break;
    if (x == 7) steps += 1000;
  }
  __syncwarp(__activemask());
  out[t] = steps + (__popc(__ballot_sync(__activemask(), x == 1)) << 16);
}

struct Account {
  u64 next, done;
};

// Persistent: warps claim chunks, poll a flag, watch the clock, and note where they stopped, as kernels/search.h has it.
extern "C" __global__ void persist(const u32* in, u64 chunks, u32 chunk, u64 budget, Account* account, u64* slots,
                                   const u32* flags, u32* out) {
  const u32 lane = threadIdx.x % 32, unit = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  const long long begin = clock64();
  u64 slot = slots[unit];
  for (;;) {
    if (slot == 0) {
      u64 claim = 0;
      if (lane == 0) claim = atomicAdd(&account->next, u64{1});
      claim = __shfl_sync(~0u, claim, 0);
      if (claim >= chunks) break;
      slot = (claim + 1) << 32;
    }
    u32 i = u32(slot);
    bool out_of_time = false;
    for (; i < chunk; ++i) {
      u32 flag;
      asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(flag) : "l"(flags + unit % 4 * 32) : "memory");
      out_of_time = flag != 0 || (budget && u64(clock64() - begin) >= budget);
      if (out_of_time) break;
      const u64 at = ((slot >> 32) - 1) * chunk * 32 + i * 32 + lane;
      out[at] += in[at] * 5 + 1;
    }
    if (out_of_time) {
      slot = slot >> 32 << 32 | i;
      break;
    }
    slot = 0;
    if (lane == 0) atomicAdd(&account->done, u64{1});
  }
  if (lane == 0) slots[unit] = slot;
}
