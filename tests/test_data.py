"""The packaged headers: real blocks, each by its own target."""

import hashlib
import importlib.metadata

import pytest

from wattwork.data import HEADER_BYTES, MAINNET_HEIGHTS, mainnet_header, packaged_bytes
from wattwork.errors import InvalidInput

GENESIS = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"


@pytest.mark.parametrize("height", MAINNET_HEIGHTS)
def test_each_header_meets_its_target(height):
    header = mainnet_header(height)
    assert len(header) == HEADER_BYTES
    bits = int.from_bytes(header[72:76], "little")
    target = (bits & 0x7FFFFF) << 8 * ((bits >> 24) - 3)
    digest = hashlib.sha256(hashlib.sha256(header).digest()).digest()
    assert int.from_bytes(digest, "little") <= target
    if height == 0:
        assert digest[::-1].hex() == GENESIS


def test_the_headers_are_distinct_and_in_order():
    times = [int.from_bytes(mainnet_header(height)[68:72], "little") for height in MAINNET_HEIGHTS]
    assert times == sorted(set(times))
    assert list(MAINNET_HEIGHTS) == sorted(MAINNET_HEIGHTS)
    assert len(packaged_bytes("mainnet_headers.bin")) == HEADER_BYTES * len(MAINNET_HEIGHTS)


def test_other_heights_are_refused():
    with pytest.raises(InvalidInput, match="block 1 is not packaged; choose one of 0, "):
        mainnet_header(1)


def test_what_is_packaged_is_credited():
    readme = packaged_bytes("README.md").decode()
    for name in ("mainnet_headers.bin", "azure_llm_2023_code_slice.csv", "report.schema.json"):
        assert name in readme
    notice = importlib.metadata.distribution("wattwork").read_text("licenses/NOTICE")
    for text in (readme, notice):
        assert "requests 6865 to 7120 of 8819" in text
        assert "CC-BY-4.0" in text
        assert "EthanYuan/ckb-bitcoin-spv-testdata" in text
