"""Bitcoin mainnet headers and random works for the tests."""

import hashlib
from pathlib import Path

DATA = Path(__file__).parent / "data"
GENESIS = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
)


def mainnet_headers():
    """First and last block of every difficulty period up to 832,608: 827 headers."""
    raw = (DATA / "mainnet_headers_retarget.bin").read_bytes()
    return [raw[i : i + 80] for i in range(0, len(raw), 80)]


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def oracle(work, first, count, version_first=0, versions=1):
    """The hits of a rectangle, by hashlib."""
    hits = []
    for number in range(version_first, version_first + versions):
        version = work.version_at(number)
        for nonce in range(first, first + count):
            digest = sha256d(work.header_with(nonce=nonce, version=version))
            if int.from_bytes(digest, "little") <= work.target:
                hits.append((nonce, version, digest))
    return tuple(hits)
