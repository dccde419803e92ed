"""What the Numba search has of its own: imported late, compiled once for all processes, free of the GIL."""

import os
import subprocess
import sys
import threading

from headers import GENESIS

from wattwork.stop import Stop
from wattwork.work import Work

WORK = Work.from_header(GENESIS, target=1)


def run_python(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    ).stdout.split()


def test_imported_only_when_asked_for():
    code = (
        "import sys\n"
        "from wattwork._search import isas, search\n"
        "from wattwork.work import Work\n"
        "work = Work.from_header(bytes(80), target=1)\n"
        "print('numba' in isas(), 'numba' in sys.modules)\n"
        "search(work, 0, 10, isa='numpy')\n"
        "print('numba' in sys.modules)\n"
        "search(work, 0, 10, isa='numba')\n"
        "print('numba' in sys.modules)\n"
    )
    assert run_python(code) == ["True", "False", "False", "True"]


def test_the_second_process_compiles_nothing(tmp_path):
    code = "from wattwork._search_numba import _scan as s; print(sum(s.stats.cache_hits.values()), len(s.overloads))"
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == ["0", "1"]
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == ["1", "1"]


def test_stop_is_seen_within_a_scan_which_leaves_the_gil_free():
    """The compiled loop polls the word, which a Python thread can set meanwhile: or this call would take minutes."""
    from wattwork import _search_numba

    stop = Stop()
    assert _search_numba.scan(WORK.header, 0, 100, 0, stop) == (100, [])  # the first call takes its time
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    reached, candidates = _search_numba.scan(WORK.header, 0, 2**32, 0, stop)
    timer.join()
    assert 0 < reached < 2**32
    assert candidates == []
