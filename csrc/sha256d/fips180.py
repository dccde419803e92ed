"""SHA-256's constants, for the scripts here that write assembly."""

from math import isqrt


def cube_root(n: int) -> int:
    root = round(n ** (1 / 3))
    while root**3 > n:
        root -= 1
    while (root + 1) ** 3 <= n:
        root += 1
    return root


# FIPS 180-4, 4.2.2 and 5.3.3: the fractions of the first primes' cube roots and square roots.
PRIMES = [n for n in range(2, 312) if all(n % k for k in range(2, isqrt(n) + 1))]
K = [cube_root(p << 96) % 2**32 for p in PRIMES]
INIT = [isqrt(p << 64) % 2**32 for p in PRIMES[:8]]

# The padding of both messages: a one bit, zeros, and the length in bits (80 and 32 bytes).
PAD_ONE, HEADER_BITS, HASH_BITS = 1 << 31, 640, 256
