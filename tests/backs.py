"""Whether a job in the back moves, without asking how fast."""

import time


def wait_until(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def moves(job):
    before = job.units
    wait_until(lambda: job.units > before)
