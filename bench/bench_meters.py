"""What a meter costs: a window's begin and end over two zones, the helper thread, the import, the package's size.

Two powercap zones lie in memory (/dev/shm) as files of our own; a kernel's file costs the read of a register more. The
zones' counters move each millisecond or two, as a processor's do, by another process. begin/end: microseconds of the
pair, back to back. Helper: CPU time of the whole process while one window is open and nothing else runs, of a core.
Import: wall time of `import wattwork`, and `wattwork.meters`, beyond `import numpy`, in fresh processes, the median.
Size: wattwork's own files, without those of its dependencies.

    python bench/bench_meters.py [PAIRS]
"""

import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import files
from pathlib import Path
from statistics import median, quantiles

from wattwork.meters import Meter

RANGE_UJ = 262143328850
IMPORT = "import time; import numpy; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def make_zones(root):
    for number in range(2):
        zone = root / f"intel-rapl:{number}"
        zone.mkdir()
        (zone / "name").write_text(f"package-{number}\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        (zone / "energy_uj").write_text("1000000\n")


# The zones' counters, moved by a process of its own: a thread here would share the interpreter with what is measured.
MOVER = """
import sys, time
from pathlib import Path
energy = [open(Path(sys.argv[1]) / f"intel-rapl:{n}" / "energy_uj", "r+") for n in range(2)]
uj = 100_000_000
while True:
    uj += int(50e6 * 1e-3)
    for file in energy:
        file.seek(0)
        file.write(f"{uj}\\n")
        file.flush()
    time.sleep(1e-3)
"""


def pairs_us(meter, n):
    times = []
    for _ in range(n):
        start = time.perf_counter_ns()
        meter.end(meter.begin())
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times


def helper_share(meter, seconds=3.0):
    before = time.process_time()
    with meter.window():
        time.sleep(seconds)
    return (time.process_time() - before) / seconds


def import_ms(module, runs=9):
    command = [sys.executable, "-c", IMPORT.format(module)]
    return 1e3 * median(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs))


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        make_zones(Path(folder))
        os.environ["WATTWORK_POWERCAP_ROOT"] = folder
        mover = subprocess.Popen([sys.executable, "-c", MOVER, folder])
        try:
            time.sleep(0.5)
            meter = Meter("rapl")
            print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f} of the last minute")
            print(f"counters updated each {meter.period_s * 1e3:.3g} ms")
            pairs_us(meter, 1000)
            cuts = quantiles(pairs_us(meter, n), n=100)
            print(f"begin/end, two zones: p50 {cuts[49]:.1f} us, p90 {cuts[89]:.1f}, p99 {cuts[98]:.1f}")
            print(f"helper thread, a window of 3 s: {helper_share(meter):.2%} of a core")
            meter.close()
        finally:
            mover.kill()
            mover.wait()
    for module in ("wattwork", "wattwork.meters"):
        print(f"import {module}: {import_ms(module):.1f} ms beyond numpy")
    own = sum(Path(file.locate()).stat().st_size for file in files("wattwork") or () if Path(file.locate()).is_file())
    print(f"own files: {own / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
