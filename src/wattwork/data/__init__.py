"""Data that comes with the package: mainnet headers, a slice of a request trace, published ASICs, JSON Schemas."""

from __future__ import annotations

from importlib import resources

from wattwork.errors import InvalidInput

HEADER_BYTES = 80
# Each the first of a difficulty period: the genesis block, the first change of difficulty, ..., the newest.
MAINNET_HEIGHTS = (0, 32_256, 100_800, 209_664, 481_824, 604_800, 705_600, 832_608)


def packaged_bytes(name: str) -> bytes:
    """The content of a packaged file."""
    return resources.files(__name__).joinpath(name).read_bytes()


def mainnet_header(height: int) -> bytes:
    """The 80 bytes of the block header at that height of Bitcoin's main chain, nonce included.

    InvalidInput for a height that is not in `MAINNET_HEIGHTS`.
    """
    if height not in MAINNET_HEIGHTS:
        there = ", ".join(map(str, MAINNET_HEIGHTS))
        raise InvalidInput(f"the header of block {height} is not packaged; choose one of {there}.")
    at = MAINNET_HEIGHTS.index(height) * HEADER_BYTES
    return packaged_bytes("mainnet_headers.bin")[at : at + HEADER_BYTES]
