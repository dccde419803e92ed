"""The compiled search kernels, run by the machine of tests/sass, against hashlib: hits, account, leaving, resuming."""

import importlib
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from headers import sha256d
from sass.fault import Fault
from sass.search import Search
from sass.toolchain import KERNELS, TOOLS, built, needs_tools
from seeds import FRESH_SEED

from wattwork import Work
from wattwork.data import MAINNET_HEIGHTS, mainnet_header

SOURCE = KERNELS / "sha256d.cu"
pytestmark = needs_tools
BIP320 = 0x1FFFE000


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return built(tmp_path_factory.mktemp("kernels"), SOURCE)


@pytest.fixture
def sass_bound(monkeypatch):
    """bench/sass_bound.py: the table of variants, and the count of their machine code."""
    monkeypatch.syspath_prepend(KERNELS.parent / "bench")
    return importlib.import_module("sass_bound")


def expected(work, pairs):
    """Those of (version number, nonce) whose double hash's top 32 bits are at most the target's, by hashlib."""

    def top(number, nonce):
        header = work.header_with(nonce=nonce, version=work.version_at(number))
        return int.from_bytes(sha256d(header)[28:], "little")

    return sorted(pair for pair in pairs if top(*pair) <= work.target >> 224)


def plain(kernels, work, first, count, **shape):
    return Search(kernels("search_plain"), work, first, count, **shape)


def rolled(kernels, work, first, count, **shape):
    return Search(kernels("search_rolled"), work, first, count, rolled=True, **shape)


def check_around_the_true_nonce(kernels, height, target):
    header = mainnet_header(height)
    nonce = int.from_bytes(header[76:], "little")
    work = Work.from_header(header, target=target, version_mask=BIP320)
    for search in (
        plain(kernels, work, nonce - 40, 90, blocks=1, threads=64, chunk=2),
        rolled(kernels, work, nonce - 1, 3, blocks=1, threads=64, chunk=2, versions=40),
    ):
        search.launch(seed=FRESH_SEED)
        assert search.finished()
        pairs = search.tested()
        assert sorted(pairs) == [(v, search.first + k) for v in range(search.versions) for k in range(search.count)]
        assert search.found() == expected(work, pairs)
        assert (0, nonce) in search.found()


@pytest.mark.parametrize("target", [0xFFFF << 208, 1 << 254])
@pytest.mark.parametrize("height", MAINNET_HEIGHTS)
def test_the_true_nonce_is_found_and_easy_ones_around_it(kernels, height, target):
    check_around_the_true_nonce(kernels, height, target)


def test_every_variant_finds_them(sass_bound, tmp_path):
    for name, options in sass_bound.VARIANTS.items():
        folder = tmp_path / name
        folder.mkdir()
        check_around_the_true_nonce(built(folder, SOURCE, *options), MAINNET_HEIGHTS[-1], 1 << 254)


@pytest.mark.parametrize("seed", [1, 2, FRESH_SEED])
@pytest.mark.parametrize("kind", [plain, rolled])
def test_the_account_is_exact_after_a_flag_a_budget_and_at_the_end(kernels, kind, seed):
    rng = random.Random(seed)
    work = Work.from_header(rng.randbytes(80), target=rng.choice([1 << 253, 1 << 255]), version_mask=BIP320)
    count, versions = (rng.randrange(200, 500), 1) if kind is plain else (rng.randrange(2, 6), rng.randrange(40, 100))
    first = min(rng.randrange(1 << 32), (1 << 32) - count)
    shape = {"blocks": 2, "threads": rng.choice([32, 64]), "chunk": rng.randrange(1, 5), "versions": versions}
    search, launches, left = kind(kernels, work, first, count, **shape), 0, 0
    while not search.finished():
        calm = launches >= 6  # from then on, nothing comes between
        search.flags[:] = 0
        when = rng.randrange(500, 25_000) if launches else 6000  # the first time, surely in the middle of a chunk
        at = {} if calm else {when: lambda: search.flags.fill(rng.randrange(1, 9))}
        budget = rng.choice([0, 15_000, 10**6]) if launches and not calm else 0
        search.launch(budget=budget, at=at, seed=rng.random())
        launches, left = launches + 1, left + np.count_nonzero(search.slots)
        pairs = search.tested()
        assert len(set(pairs)) == len(pairs)
        assert search.found() == expected(work, pairs)
        assert search.account[1] == len(search.found())
    assert left > 0
    assert sorted(search.tested()) == [(v, first + k) for v in range(versions) for k in range(count)]


@pytest.mark.parametrize("words", ["flags", "recall"])
@pytest.mark.parametrize("kind", [plain, rolled])
def test_a_flag_or_recall_that_is_up_stops_before_anything_is_claimed(kernels, kind, words):
    work = Work.from_header(mainnet_header(0), target=1 << 255)
    search = kind(kernels, work, 0, 64, blocks=2, threads=64, chunk=1)
    getattr(search, words)[:] = 1
    search.launch()
    assert (search.account.tolist(), search.slots.any(), search.found()) == ([0, 0], False, [])


@pytest.mark.parametrize(("kind", "count", "versions"), [(plain, 700, 1), (rolled, 9, 40)])
def test_units_on_other_sms_do_nothing_and_the_account_stays_exact(kernels, kind, count, versions):
    """Also what they had begun while they were allowed to: it waits in their slots."""
    work = Work.from_header(mainnet_header(0), target=1 << 254, version_mask=BIP320)
    search = kind(kernels, work, 5, count, blocks=4, threads=32, chunk=3, versions=versions)
    search.launch(at={6000: lambda: search.flags.fill(1)}, seed=FRESH_SEED)
    begun = search.slots.copy()
    assert np.count_nonzero(begun) >= 2
    for sms in (0, 2):
        search.flags[:] = 0
        before = search.account.copy()
        search.launch(sms=sms, seed=FRESH_SEED)
        assert (search.slots[sms:] == begun[sms:]).all()
        assert (sms == 0) == (search.account == before).all()
        pairs = search.tested()
        assert len(set(pairs)) == len(pairs)
        assert search.found() == expected(work, pairs)
    search.launch(sms=2, on=lambda block: 3 - block)
    assert search.finished()
    assert search.found() == expected(work, search.tested())


@pytest.mark.parametrize(("kind", "count", "versions"), [(plain, 64, 1), (rolled, 2, 32)])
def test_an_overflow_of_the_hits_shows(kernels, kind, count, versions):
    work = Work.from_header(mainnet_header(0), target=2**256 - 1, version_mask=BIP320)
    search = kind(kernels, work, 0, count, blocks=1, threads=32, chunk=9, versions=versions, capacity=10)
    search.launch()
    assert search.account[1] == 64
    assert len({*search.found()}) == 10


@pytest.mark.parametrize(("kind", "count", "versions"), [(plain, 96, 1), (rolled, 6, 32)])
def test_one_wrong_instruction_in_the_hash_is_seen(kernels, kind, count, versions):
    rng = random.Random(FRESH_SEED)
    work = Work.from_header(rng.randbytes(80), target=1 << 255, version_mask=BIP320)

    def search():
        return kind(kernels, work, 1000, count, blocks=1, threads=32, chunk=6, versions=versions)

    untouched = search()
    issued, machine = untouched.launch(), untouched.machine
    right = expected(work, untouched.tested())
    assert untouched.found() == right
    often, _ = Counter(issued.values()).most_common(1)[0]  # once for each iteration: the hash
    edits = [(k, wrong(i, rng)) for k, i in enumerate(machine.kernel.code) if issued[k] == often and wrong(i, rng)]
    for index, instruction in rng.sample(edits, 8):
        changed = search()
        changed.machine = machine.edited(index, instruction)
        try:
            changed.launch(limit=100_000)
        except Fault:  # it was of an address: seen, too
            continue
        assert changed.found() != right, f"{index}: {machine.kernel.code[index]} and {instruction}"


def wrong(instruction, rng):
    """Another truth table, distance of a rotation, or constant; None for an instruction without one."""
    constants = [text for text in instruction.operands if re.fullmatch("0x[0-9a-f]{5,8}", text)]
    if instruction.opcode == "LOP3":
        old = instruction.operands[-2]
        new = int(old, 0) ^ 0xFF
    elif instruction.opcode == "SHF" and "W" in instruction.flags:
        old = instruction.operands[2]
        new = int(old, 0) ^ 1 << rng.randrange(5)
    elif instruction.opcode in ("IADD3", "VIADD", "IMAD") and constants:
        old = constants[0]
        new = int(old, 0) ^ 1 << rng.randrange(32)
    else:
        return None
    return instruction._replace(operands=tuple(hex(new) if text == old else text for text in instruction.operands))


def test_what_is_executed_is_what_was_counted(kernels, sass_bound):
    """bench/sass_bound.py counts the longest way around the loop: hardly more than what is executed, and never less."""
    bounds = sass_bound.bounds(Path(TOOLS))
    work = Work.from_header(bytes(80), target=1 << 200, version_mask=BIP320)
    for kind, nonces, warps in ((plain, 32, 1), (rolled, 1, sass_bound.BLOCK // 32)):
        shape = {"blocks": 1, "threads": 32 * warps, "chunk": 9, "versions": 1 if kind is plain else 32 * warps}
        few, more = (kind(kernels, work, 0, n * nonces, **shape).launch().total() for n in (2, 6))
        _, counted = bounds[f"search_{kind.__name__}"]
        assert 0.99 * counted.all < (more - few) / 4 / warps <= counted.all
