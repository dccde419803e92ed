"""Work: a block header, the target its hash must meet, and the version bits that may be rolled."""

import math
import operator
from dataclasses import dataclass
from fractions import Fraction

from wattwork.errors import InvalidInput

MAX_TARGET = 2**256 - 1
DIFFICULTY_1_TARGET = 0xFFFF << 208  # of compact bits 0x1d00ffff, the genesis block's
BIP320_MASK = 0x1FFFE000  # the 16 version bits BIP 320 leaves to miners


def bits_to_target(bits: int) -> int:
    """The target that compact bits stand for (Bitcoin Core's `arith_uint256::SetCompact`).

    Raises InvalidInput where they are negative, larger than 256 bits, or zero.
    """
    if not 0 <= bits < 2**32:
        raise InvalidInput(f"compact bits must be a 32-bit number, not {bits:#x}.")
    size, mantissa = bits >> 24, bits & 0x7FFFFF
    target = mantissa << 8 * (size - 3) if size > 3 else mantissa >> 8 * (3 - size)
    if target and bits & 0x800000:
        raise InvalidInput(f"compact bits {bits:#010x} stand for a negative target; give `target` yourself.")
    if target > MAX_TARGET:
        raise InvalidInput(f"compact bits {bits:#010x} stand for a target above 2**256 - 1; give `target` yourself.")
    if not target:
        raise InvalidInput(f"compact bits {bits:#010x} stand for a target of zero; give `target` yourself.")
    return target


def target_to_bits(target: int) -> int:
    """The compact bits of a target: its three leading bytes, rounded down (`arith_uint256::GetCompact`)."""
    target = _checked_target(target)
    size = (target.bit_length() + 7) // 8
    mantissa = target >> 8 * (size - 3) if size > 3 else target << 8 * (3 - size)
    if mantissa & 0x800000:  # this bit is the sign
        mantissa, size = mantissa >> 8, size + 1
    return size << 24 | mantissa


def target_to_difficulty(target: int) -> float:
    """How many times harder than difficulty 1 (compact bits 0x1d00ffff) a target is."""
    return DIFFICULTY_1_TARGET / _checked_target(target)


def difficulty_to_target(difficulty: float) -> int:
    """The largest target of at least this difficulty, at most 2**256 - 1. Raises InvalidInput unless it is above 0."""
    if not (math.isfinite(difficulty) and difficulty > 0):
        raise InvalidInput(f"difficulty must be a finite number above 0, not {difficulty}.")
    target = int(DIFFICULTY_1_TARGET / Fraction(difficulty))
    if not target:
        raise InvalidInput(f"no hash can meet a difficulty of {difficulty}; give a smaller one.")
    return min(target, MAX_TARGET)


def _checked_target(target: int) -> int:
    try:
        value = operator.index(target)
    except TypeError:
        raise InvalidInput(f"target must be an int, not {type(target).__name__}.") from None
    if not 1 <= value <= MAX_TARGET:
        raise InvalidInput(f"target must be from 1 to 2**256 - 1, not {value:#x}.")
    return value


@dataclass(frozen=True, slots=True)
class Work:
    """What to search: make one with `Work.from_header`.

    `header` is 80 bytes, of which the nonce field is ignored; a hash is a hit if
    `int.from_bytes(hash, "little") <= target`; `version_mask` has a bit set for each version bit that may be rolled.
    """

    header: bytes
    target: int
    version_mask: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.header, bytes) or len(self.header) != 80:
            raise InvalidInput(f"a block header must be 80 bytes; this one is {_described(self.header)}.")
        _checked_target(self.target)
        if not 0 <= self.version_mask < 2**32:
            raise InvalidInput(f"version_mask must be a 32-bit number, not {self.version_mask:#x}.")

    @classmethod
    def from_header(
        cls, header80: bytes | bytearray | memoryview, *, target: int | None = None, version_mask: int = 0
    ) -> "Work":
        """The work of a raw 80-byte header; `target` overrides the one in its compact bits.

        Raises InvalidInput for a header of another length, compact bits that are negative, zero or too large where
        no target is given, a target outside 1 ... 2**256 - 1, or a mask of more than 32 bits.
        """
        header = bytes(header80) if isinstance(header80, bytes | bytearray | memoryview) else header80
        if not isinstance(header, bytes) or len(header) != 80:
            raise InvalidInput(f"a block header must be 80 bytes; this one is {_described(header)}.")
        if target is None:
            target = bits_to_target(int.from_bytes(header[72:76], "little"))
        return cls(header, _checked_target(target), version_mask)

    @property
    def version(self) -> int:
        """The header's own version field."""
        return int.from_bytes(self.header[:4], "little")

    @property
    def time(self) -> int:
        """The header's time, in seconds since 1970."""
        return int.from_bytes(self.header[68:72], "little")

    @property
    def bits(self) -> int:
        """The header's compact bits; `target` may be another."""
        return int.from_bytes(self.header[72:76], "little")

    @property
    def nonce(self) -> int:
        """The header's own nonce field, which a search ignores."""
        return int.from_bytes(self.header[76:], "little")

    @property
    def difficulty(self) -> float:
        """How many times harder than difficulty 1 the target is."""
        return target_to_difficulty(self.target)

    @property
    def versions(self) -> int:
        """How many versions the mask makes: 2 to the number of its bits."""
        return 1 << self.version_mask.bit_count()

    def version_at(self, number: int) -> int:
        """The version field with number `number` rolled into the mask's bits; number 0 is the header's own."""
        if not 0 <= number < self.versions:
            raise InvalidInput(f"the version mask makes {self.versions} versions; number {number} is not among them.")
        version, bit = self.version, 0
        for position in range(32):
            if self.version_mask >> position & 1:
                version ^= (number >> bit & 1) << position
                bit += 1
        return version

    def header_with(self, *, nonce: int, version: int | None = None, time: int | None = None) -> bytes:
        """The 80 bytes that are hashed for a hit: double-hash them to check it."""
        fields = (self.version if version is None else version, self.time if time is None else time, nonce)
        raw_version, raw_time, raw_nonce = (field.to_bytes(4, "little") for field in fields)
        return raw_version + self.header[4:68] + raw_time + self.header[72:76] + raw_nonce


def _described(header: object) -> str:
    return f"{len(header)}" if isinstance(header, bytes) else f"a {type(header).__name__}"
