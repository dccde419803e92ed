"""What a subprocess with the fake NVML runs: a clock that drives it, windows over it, and answers as JSON lines."""

import ctypes
import json
import random
import sys

from powercap import FakeClock, drive

from wattwork.errors import WattworkError
from wattwork.meters.nvml import READINGS, open_nvml

fake = ctypes.CDLL("libnvidia-ml.so.1")
fake.fake_nvml_time.argtypes = [ctypes.c_double]
fake.fake_nvml_joules.argtypes = [ctypes.c_double]
fake.fake_nvml_joules.restype = ctypes.c_double
clock = FakeClock()
clock.listeners.append(fake.fake_nvml_time)
clock.sleep(3.0)


def answer(**values):
    print(json.dumps(values))


def source(*readings, device="cuda:0"):
    """A source without its thread; whoever waits on `wait` does what the thread would."""
    return open_nvml(device, clock, readings=readings or READINGS, helper=False)


def wait(nvml, seconds, look_s=None):
    """With `look_s` the helper thread is that slow."""
    if look_s is None:
        return drive(nvml.counters, clock, seconds)
    until = clock.t + seconds
    while clock.t < until:
        clock.sleep(min(look_s, until - clock.t))
        nvml.counters.poll()


def window(nvml, seconds, look_s=None):
    """A window of about `seconds`: its energy and the joules it really was."""
    begin_s = clock.t
    token = nvml.begin()
    begin_s = (begin_s + clock.t) / 2
    wait(nvml, seconds, look_s)
    end_s = clock.t
    energy = nvml.end(token)
    end_s = (end_s + clock.t) / 2
    return energy, fake.fake_nvml_joules(end_s) - fake.fake_nvml_joules(begin_s)


def windows(nvml, n, shortest_s=0.6, longest_s=1.7):
    """Of n windows of odd lengths: how many held the truth, and what all of them say."""
    draw, inside, said = random.Random(1), 0, []
    for _ in range(n):
        clock.sleep(draw.uniform(0.0, 0.2))
        energy, truth_j = window(nvml, draw.uniform(shortest_s, longest_s))
        inside += energy.ci95_j[0] <= truth_j <= energy.ci95_j[1]
        said.append((energy.joules / truth_j, energy))
    return inside, said


def try_to(act):
    """The one sentence it is refused with."""
    try:
        act()
    except WattworkError as error:
        answer(error=type(error).__name__, said=str(error))
    else:
        answer(error=None, said="")


if __name__ == "__main__":
    exec(sys.argv[1])
