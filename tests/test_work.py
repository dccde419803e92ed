"""Work: compact bits, targets, difficulties, versions."""

import pytest
from headers import GENESIS, mainnet_headers, sha256d
from hypothesis import given
from hypothesis import strategies as st

from wattwork.errors import InvalidInput
from wattwork.work import (
    BIP320_MASK,
    MAX_TARGET,
    Work,
    bits_to_target,
    difficulty_to_target,
    target_to_bits,
    target_to_difficulty,
)

# Bitcoin Core, src/test/arith_uint256_tests.cpp, bignum_SetCompact.
CORE_ZERO = [0x00000000, 0x00123456, 0x01003456, 0x02000056, 0x03000000, 0x04000000, 0x00923456, 0x01803456]
CORE_ZERO += [0x02800056, 0x03800000, 0x04800000]
CORE_NEGATIVE = [0x01FEDCBA, 0x04923456]
CORE_OVERFLOW = [0xFF123456, 0x23000001, 0x22000100, 0x21010000]
CORE_TARGETS = [
    (0x01123456, 0x12, 0x01120000),
    (0x02123456, 0x1234, 0x02123400),
    (0x03123456, 0x123456, 0x03123456),
    (0x04123456, 0x12345600, 0x04123456),
    (0x05009234, 0x92340000, 0x05009234),
    (0x20123456, 0x123456 << 232, 0x20123456),
]


@pytest.mark.parametrize(("bits", "target", "canonical"), CORE_TARGETS)
def test_compact_bits_as_bitcoin_core(bits, target, canonical):
    assert bits_to_target(bits) == target
    assert target_to_bits(target) == canonical


@pytest.mark.parametrize(
    ("bits", "why"),
    [(b, "zero") for b in CORE_ZERO] + [(b, "negative") for b in CORE_NEGATIVE] + [(b, "above") for b in CORE_OVERFLOW],
)
def test_compact_bits_refused(bits, why):
    with pytest.raises(InvalidInput, match=why):
        bits_to_target(bits)
    header = GENESIS[:72] + bits.to_bytes(4, "little") + GENESIS[76:]
    with pytest.raises(InvalidInput, match=why):
        Work.from_header(header)
    assert Work.from_header(header, target=5).target == 5


def test_compact_bits_at_the_edges():
    assert target_to_bits(0x80) == 0x02008000
    assert target_to_bits(MAX_TARGET) == 0x2100FFFF
    assert bits_to_target(0x2100FFFF) == 0xFFFF << 240
    assert bits_to_target(0x220000FF) == 0xFF << 248
    with pytest.raises(InvalidInput, match="32-bit"):
        bits_to_target(2**32)


@given(st.integers(1, MAX_TARGET))
def test_compact_bits_round_down(target):
    rounded = bits_to_target(target_to_bits(target))
    assert rounded <= target < rounded + rounded // 2**14 + 1
    assert target_to_bits(rounded) == target_to_bits(target)


def test_difficulty():
    assert target_to_difficulty(bits_to_target(0x1D00FFFF)) == 1
    assert target_to_difficulty(bits_to_target(0x1B0404CB)) == pytest.approx(16307.420938523983, rel=1e-15)
    assert difficulty_to_target(1) == bits_to_target(0x1D00FFFF)
    assert difficulty_to_target(1e-30) == MAX_TARGET
    for bad in (0, -1, float("nan"), float("inf"), 1e300):
        with pytest.raises(InvalidInput, match="difficulty"):
            difficulty_to_target(bad)


@given(st.integers(1, MAX_TARGET))
def test_difficulty_round_trip(target):
    assert abs(difficulty_to_target(target_to_difficulty(target)) - target) <= 1 + target * 1e-14


def test_fields_of_the_genesis_header():
    work = Work.from_header(bytearray(GENESIS))
    assert (work.version, work.time, work.bits, work.nonce) == (1, 1231006505, 0x1D00FFFF, 2083236893)
    assert work.difficulty == 1
    assert work.versions == 1
    assert work.header_with(nonce=work.nonce) == GENESIS
    assert work.header_with(nonce=5, version=9, time=7)[68:72] == bytes([7, 0, 0, 0])


def test_every_mainnet_header_meets_its_bits():
    headers = mainnet_headers()
    assert len(headers) == 827
    for header in headers:
        assert int.from_bytes(sha256d(header), "little") <= Work.from_header(header).target


@pytest.mark.parametrize("header", [b"", GENESIS[:-1], GENESIS + b"\0", GENESIS.hex(), None, [0] * 80])
def test_header_must_be_80_bytes(header):
    with pytest.raises(InvalidInput, match="80 bytes"):
        Work.from_header(header)


@pytest.mark.parametrize("target", [0, -1, 2**256, 1.5, "1"])
def test_target_refused(target):
    with pytest.raises(InvalidInput, match="target"):
        Work.from_header(GENESIS, target=target)


@pytest.mark.parametrize("mask", [-1, 2**32])
def test_mask_refused(mask):
    with pytest.raises(InvalidInput, match="mask"):
        Work.from_header(GENESIS, version_mask=mask)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0))
def test_versions_are_rolled_within_the_mask(version, mask, number):
    work = Work.from_header(version.to_bytes(4, "little") + GENESIS[4:], version_mask=mask)
    assert work.version_at(0) == version
    number %= work.versions
    rolled = work.version_at(number)
    assert (rolled ^ version) & ~mask == 0
    bits = [position for position in range(32) if mask >> position & 1]
    assert sum((rolled ^ version) >> position << k & 1 << k for k, position in enumerate(bits)) == number
    with pytest.raises(InvalidInput, match="mask makes"):
        work.version_at(work.versions)


def test_bip320_makes_65536_versions():
    assert Work.from_header(GENESIS, version_mask=BIP320_MASK).versions == 65536
