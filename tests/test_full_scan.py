"""One header's whole nonce space on every native instruction set: the same hits from all, each checked with hashlib."""

import pytest
from headers import GENESIS, sha256d

from wattwork._search import PYTHON_ISAS, isas, search
from wattwork.work import Work

TARGET = 2**238  # one pair in 2^18 meets it: some 16,384 of all
NATIVE = [isa for isa in isas() if isa not in PYTHON_ISAS]


@pytest.mark.long
@pytest.mark.core
@pytest.mark.parametrize(("count", "versions"), [(2**32, 1), (2**27, 32)], ids=["plain", "rolled"])
def test_all_pairs_on_every_instruction_set(count, versions, capsys):
    work = Work.from_header(GENESIS, target=TARGET, version_mask=0x1FFFE000)
    hits = None
    for isa in NATIVE:
        result = search(work, 0, count, versions=versions, isa=isa)
        with capsys.disabled():
            print(f"\n{isa}: {count} nonces x {versions}, {len(result.hits)} hits, {result.seconds:.0f} s", flush=True)
        assert (result.hashes, result.remaining, result.isa) == (count * versions, (), isa)
        for nonce, version, digest in result.hits:
            assert sha256d(work.header_with(nonce=nonce, version=version)) == digest
            assert int.from_bytes(digest, "little") <= TARGET
        if hits is None:
            hits = result.hits
        assert result.hits == hits
    assert 15_700 < len(hits) < 17_100  # 16,384, within some five standard deviations
