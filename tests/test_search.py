"""The search against hashlib: every pair once, every hit exact, whatever ends it."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from functools import cache

import pytest
from headers import GENESIS, mainnet_headers, oracle, sha256d
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork._native import HAVE_CORE
from wattwork._search import PYTHON_ISAS, isas, search
from wattwork.errors import InvalidInput, UnsupportedISA
from wattwork.rectangle import Rect
from wattwork.stop import Stop
from wattwork.work import MAX_TARGET, Work

FAST = [isa for isa in isas() if isa != "numpy"]
NATIVE = [isa for isa in FAST if isa not in PYTHON_ISAS]
EASY = 2**248
END = 2**32
per_isa = pytest.mark.parametrize("isa", isas())


def assert_finds_the_nonce(header, isa, reach):
    work = Work.from_header(header)
    first = max(work.nonce - reach, 0)
    count = min(work.nonce + reach, END) - first
    result = search(work, first, count, isa=isa)
    assert result.hits == ((work.nonce, work.version, sha256d(header)),)
    assert (result.hashes, result.remaining, result.isa) == (count, (), isa)


@pytest.mark.parametrize("isa", FAST)
def test_all_mainnet_headers(isa):
    for header in mainnet_headers():
        assert_finds_the_nonce(header, isa, 20_000)


def test_mainnet_headers_numpy():
    for header in mainnet_headers()[::20]:
        assert_finds_the_nonce(header, "numpy", 5_000)


@pytest.mark.long
def test_all_mainnet_headers_numpy():
    for header in mainnet_headers():
        assert_finds_the_nonce(header, "numpy", 20_000)


@cache
def easy_work():
    return Work.from_header(GENESIS, target=EASY, version_mask=0x1FFFE000)


@cache
def easy_hits(number, low, high):
    return oracle(easy_work(), low, high - low, number, 1)


def expected(first, count, versions):
    """What hashlib finds, from one cached run over the nonces' neighbourhood."""
    low, high = (0, 200) if first < 200 else (END - 130, END)
    hits = []
    for number in range(versions):
        row = easy_hits(number, low, high)
        begin, end = bisect_left(row, (first,)), bisect_left(row, (first + count,))
        hits += row[begin:end]
    return tuple(hits)


def assert_as_hashlib(first, count, versions, isa):
    result = search(easy_work(), first, count, versions=versions, isa=isa, threads=1)
    assert result.hits == expected(first, count, versions), (first, count, versions)
    assert result.hashes == count * versions
    assert result.remaining == ()


@pytest.mark.core
@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("versions", [1, 2, 17])
def test_every_small_range(isa, versions):
    for first in range(64):
        for count in range(131):
            assert_as_hashlib(first, count, versions, isa)


@pytest.mark.parametrize("versions", [1, 2, 17])
def test_small_ranges_numpy(versions):
    for first, count in [(0, 0), (0, 1), (63, 130), (17, 64), (5, 33)]:
        assert_as_hashlib(first, count, versions, "numpy")


@pytest.mark.parametrize("versions", [1, 2, 17])
def test_small_ranges_numba(versions):
    for first in range(0, 64, 9):
        for count in range(131):
            assert_as_hashlib(first, count, versions, "numba")


@per_isa
@pytest.mark.parametrize("versions", [1, 2, 17])
def test_the_last_nonces(isa, versions):
    for first in range(END - 130, END + 1, 1 if isa != "numpy" else 43):
        assert_as_hashlib(first, END - first, versions, isa)


@per_isa
def test_count_defaults_to_the_last_nonce(isa):
    result = search(easy_work(), END - 100, isa=isa)
    assert (result.hits, result.hashes) == (expected(END - 100, 100, 1), 100)


@per_isa
def test_all_versions(isa):
    work = Work.from_header(GENESIS, target=EASY, version_mask=0x80000005)
    result = search(work, 10, 300, versions="all", isa=isa)
    assert result.hits == oracle(work, 10, 300, 0, 8)
    assert search(work, 10, 300, versions="all", version_first=6, isa=isa).hits == oracle(work, 10, 300, 6, 2)


# Lanes hold versions where there are enough: 4, 8 or 16 of them, up to 32 side by side, what is left one by one.
MASKS = [0x1FFFE000, 0xFF, 0x80808083, 0xFFFFFFFF]


@cache
def hits_of_all_versions(mask, first, count, version_first, versions):
    return oracle(Work.from_header(GENESIS, target=2**250, version_mask=mask), first, count, version_first, versions)


@pytest.mark.core
@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("first", "count"), [(0, 67), (END - 33, 33), (END - 1, 1), (12345, 16)])
def test_versions_side_by_side(isa, mask, first, count):
    work = Work.from_header(GENESIS, target=2**250, version_mask=mask)
    most = min(65, work.versions)
    everything = hits_of_all_versions(mask, first, count, 0, most)
    order = {work.version_at(i): i for i in range(most)}
    for versions in range(1, min(most, 33) + 1):
        for version_first in (0, most - versions):
            result = search(work, first, count, versions=versions, version_first=version_first, isa=isa)
            wanted = range(version_first, version_first + versions)
            assert result.hits == tuple(hit for hit in everything if order[hit[1]] in wanted)
            assert (result.hashes, result.remaining) == (count * versions, ())


@pytest.mark.core
@pytest.mark.parametrize("isa", NATIVE)
def test_all_mainnet_headers_rolled(isa):
    """The header's own version among others, and one past full strips."""
    for header in mainnet_headers():
        work = Work.from_header(header, version_mask=0x1FFFE000)
        first = max(work.nonce - 100, 0)
        count = min(first + 200, END) - first
        for versions in (16, 33):
            result = search(work, first, count, versions=versions, isa=isa)
            assert (work.nonce, work.version, sha256d(header)) in result.hits
            assert (result.hashes, result.remaining) == (count * versions, ())


@per_isa
@pytest.mark.parametrize("target", [MAX_TARGET, 2**255 + 12345, 2**224 - 1, 1])
def test_targets_at_the_edges(isa, target):
    work = Work.from_header(GENESIS, target=target)
    result = search(work, 1000, 333, isa=isa)
    assert result.hits == oracle(work, 1000, 333)
    if target == MAX_TARGET:
        assert len(result.hits) == 333


@per_isa
def test_the_target_itself_is_met_and_one_less_is_not(isa):
    own = int.from_bytes(sha256d(GENESIS), "little")
    nonce = Work.from_header(GENESIS).nonce
    assert len(search(Work.from_header(GENESIS, target=own), nonce, 1, isa=isa).hits) == 1
    assert search(Work.from_header(GENESIS, target=own - 1), nonce, 1, isa=isa).hits == ()


def assert_partition(work, rect, result):
    """What was found and a search of what remains make up the whole."""
    hits, hashes = list(result.hits), result.hashes
    order = {work.version_at(rect.version_first + i): i for i in range(rect.versions)}
    assert hits == sorted(hits, key=lambda hit: (order[hit.version], hit.nonce))
    for rest in result.remaining:
        assert rest.count > 0
        assert rest.versions > 0
        more = search(work, **rest._asdict())
        hits += more.hits
        hashes += more.hashes
    assert hashes == rect.count * rect.versions
    whole = search(work, **rect._asdict()).hits
    assert tuple(sorted(hits, key=lambda hit: (order[hit.version], hit.nonce))) == whole


@pytest.mark.parametrize("isa", FAST)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("versions", [3, 61])
def test_stopped_at_a_random_moment(isa, threads, versions):
    work = Work.from_header(GENESIS, target=2**240, version_mask=0x7E000)
    rect = Rect(99, 1_200_000 // versions, 1, versions)
    rng = random.Random(threads)
    cut = 0
    for _ in range(8):
        stop = Stop()
        timer = threading.Timer(rng.random() * 0.03, stop.set)
        timer.start()
        result = search(work, **rect._asdict(), isa=isa, threads=threads, stop=stop)
        timer.cancel()
        timer.join()
        cut += bool(result.remaining)
        assert len(result.remaining) <= threads + 3
        assert_partition(work, rect, result)
    assert cut


def test_stopped_at_a_random_moment_numpy():
    work = Work.from_header(GENESIS, target=2**244, version_mask=0x6000)
    rect = Rect(99, 20_000, 1, 3)
    for delay_s in (0.0, 0.03, 0.06):
        stop = Stop()
        timer = threading.Timer(delay_s, stop.set)
        timer.start()
        assert_partition(work, rect, search(work, **rect._asdict(), isa="numpy", stop=stop))
        timer.cancel()
        timer.join()


@per_isa
def test_stop_set_beforehand(isa):
    stop = Stop()
    stop.set()
    assert stop.is_set
    result = search(easy_work(), 5, 1000, versions=3, isa=isa, stop=stop)
    assert (result.hits, result.hashes, result.remaining) == ((), 0, ((5, 1000, 0, 3),))
    stop.clear()
    assert not stop.is_set
    assert search(easy_work(), 5, 1000, isa=isa, stop=stop).hashes == 1000


def test_stop_is_a_word_in_memory():
    import ctypes

    stop = Stop()
    word = ctypes.c_uint32.from_address(stop.address)
    word.value = 7
    assert stop.is_set
    stop.clear()
    assert word.value == 0


@per_isa
@pytest.mark.parametrize("threads", [1, 3])
def test_max_hits_is_exact(isa, threads):
    rect = Rect(0, 30_000 if isa != "numpy" else 3_000, 0, 3)
    all_hits = search(easy_work(), **rect._asdict()).hits
    for max_hits in (1, 2, 10, len(all_hits), len(all_hits) + 1):
        result = search(easy_work(), **rect._asdict(), isa=isa, threads=threads, max_hits=max_hits)
        assert len(result.hits) == min(max_hits, len(all_hits))
        assert_partition(easy_work(), rect, result)
        if threads == 1 or isa == "numpy":
            assert result.hits == all_hits[:max_hits]


@pytest.mark.core
@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("target", [EASY, MAX_TARGET])
def test_max_hits_is_exact_side_by_side(isa, threads, target):
    """Also where it falls between two versions of one nonce."""
    work = Work.from_header(GENESIS, target=target, version_mask=0x7E000)
    rect = Rect(END - 90, 90, 2, 59)
    for max_hits in range(1, 22):
        result = search(work, **rect._asdict(), isa=isa, threads=threads, max_hits=max_hits)
        assert len(result.hits) == min(max_hits, len(search(work, **rect._asdict()).hits))
        assert len(result.remaining) <= threads + 3
        assert_partition(work, rect, result)


@per_isa
def test_max_hits_where_every_nonce_is_one(isa):
    work = Work.from_header(GENESIS, target=MAX_TARGET)
    result = search(work, 10, 1000, isa=isa, threads=1, max_hits=5)
    assert [hit.nonce for hit in result.hits] == [10, 11, 12, 13, 14]
    assert (result.hashes, result.remaining) == (5, ((15, 995, 0, 1),))


@pytest.mark.core
@pytest.mark.parametrize("threads", [1, 2, 3, None])
def test_threads_agree(threads):
    work = Work.from_header(GENESIS, target=2**240)
    assert search(work, 0, 3_000_000, threads=threads).hits == search(work, 0, 3_000_000, isa="portable").hits


@pytest.mark.core
def test_searches_side_by_side():
    work = Work.from_header(GENESIS, target=2**240)
    whole = search(work, 0, 500_000).hits
    results = []
    callers = [threading.Thread(target=lambda: results.append(search(work, 0, 500_000))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [result.hits for result in results] == [whole] * 4


# Lengths about those of a vector, and of several.
LENGTHS = sorted({0, 1, *(lanes + more for lanes in (4, 8, 16, 32, 64, 128) for more in (-1, 0, 1))})
EVERY_PAIR, TODAY, ONE_OF_THE_HASHES = MAX_TARGET, 0x377AE << 8 * 20, "one of the hashes"


@st.composite
def works_and_rects(draw):
    """Any header; a target from all that there are to today's, or just met or missed; up to some 1,000 pairs."""
    few_bits = st.sets(st.integers(0, 31), max_size=6).map(lambda bits: sum(1 << bit for bit in bits))
    mask = draw(few_bits | st.integers(0, 2**32 - 1))
    work = Work.from_header(draw(st.binary(min_size=80, max_size=80)), target=1, version_mask=mask)
    count = draw(st.sampled_from(LENGTHS) | st.integers(0, 200))
    first = draw(st.just(END - count) | st.integers(0, END - count))
    most = min(work.versions, 100 if count <= 20 else 5)  # many versions: side by side, and what is left over
    versions = draw(st.just(most) | st.integers(0, most))
    if count <= 20 and work.versions <= 64 and draw(st.booleans()):
        versions = work.versions
    version_first = draw(st.integers(0, work.versions - versions))
    rect = Rect(first, count, version_first, versions)

    target = draw(st.sampled_from([EVERY_PAIR, TODAY, ONE_OF_THE_HASHES]) | st.integers(1, 256).map(lambda n: 2**n - 1))
    if target == ONE_OF_THE_HASHES:
        nonce, number = first + draw(st.integers(0, max(count - 1, 0))), version_first + versions // 2
        field = {"nonce": nonce % END, "version": work.version_at(number % work.versions)}
        target = int.from_bytes(sha256d(work.header_with(**field)), "little") - draw(st.integers(0, 1))
    return Work.from_header(work.header, target=target, version_mask=mask), rect


def assert_random_work_as_hashlib(isa, work, rect):
    result = search(work, **rect._asdict(), isa=isa)
    assert result.hits == oracle(work, *rect)
    assert (result.hashes, result.remaining) == (rect.count * rect.versions, ())


@pytest.mark.core
@pytest.mark.parametrize("isa", NATIVE)
@settings(deadline=None, max_examples=300)
@given(work_and_rect=works_and_rects())
def test_random_work(isa, work_and_rect):
    assert_random_work_as_hashlib(isa, *work_and_rect)


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa in PYTHON_ISAS])
@settings(deadline=None, max_examples=40)
@given(work_and_rect=works_and_rects())
def test_random_work_in_python(isa, work_and_rect):
    assert_random_work_as_hashlib(isa, *work_and_rect)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"first": -1}, "first must be from 0"),
        ({"first": 2**32 + 1}, "first must be from 0"),
        ({"first": 5, "count": 2**32}, "count must be from 0 to 4294967291"),
        ({"count": -1}, "count must be from 0 to"),
        ({"versions": 2}, "mask makes 1"),
        ({"versions": -1}, "mask makes 1"),
        ({"versions": "some"}, "versions must be a whole number"),
        ({"version_first": 2}, "version_first"),
        ({"threads": 0}, "threads must be from 1"),
        ({"threads": 10**6}, "threads must be from 1"),
        ({"first": 1.5}, "first must be a whole number"),
        ({"count": "10"}, "count must be a whole number"),
        ({"max_hits": 0}, "max_hits must be at least 1"),
        ({"device": "gpu"}, "choose 'cpu'"),
    ],
)
def test_arguments_refused(arguments, words):
    with pytest.raises(InvalidInput, match=words):
        search(Work.from_header(GENESIS), **arguments)


def test_unknown_isa_is_an_error(monkeypatch):
    with pytest.raises(UnsupportedISA, match="nonesuch"):
        search(Work.from_header(GENESIS), 0, 10, isa="nonesuch")
    monkeypatch.setenv("WATTWORK_ISA", "nonesuch")
    for call in (isas, lambda: search(Work.from_header(GENESIS), 0, 10)):
        with pytest.raises(UnsupportedISA, match="nonesuch"):
            call()


def test_the_environment_chooses(monkeypatch):
    for isa in isas():
        monkeypatch.setenv("WATTWORK_ISA", isa)
        assert isas()[0] == isa
        assert search(Work.from_header(GENESIS), 0, 10).isa == isa
        assert search(Work.from_header(GENESIS), 0, 10, isa="numpy").isa == "numpy"
        monkeypatch.delenv("WATTWORK_ISA")


def test_isas_lists_those_of_python_last():
    assert isas()[-2:] == ("numba", "numpy")
    assert ("portable" in isas()) == HAVE_CORE


@per_isa
@pytest.mark.parametrize("endless", ["search(WORK, isa={!r})", "Job(WORK, isa={!r}).run(Stop())"])
def test_ctrl_c(isa, endless):
    code = (
        "from headers import GENESIS\n"
        "from wattwork.job import Job\n"
        "from wattwork._search import search\n"
        "from wattwork.stop import Stop\n"
        "from wattwork.work import Work\n"
        "WORK = Work.from_header(GENESIS, target=1)\n"
        f"search(WORK, 0, 1, isa={isa!r})  # so that what it imports late is there\n"
        "print('ready', flush=True)\n" + endless.format(isa)
    )
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as child:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=20)  # the work itself takes minutes, or does not end
    assert b"KeyboardInterrupt" in error
    assert child.returncode in (1, -signal.SIGINT)


@pytest.mark.core
def test_a_signal_handler_may_search_while_its_thread_does():
    work, inner = Work.from_header(bytes(80), target=1), []

    def handler(signum, frame):
        inner.append(search(work, 5, 1000, threads=2).hashes)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        while len(inner) < 3:
            assert search(work, 0, 2**21, threads=2).hashes == 2**21
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(inner) == {1000}
