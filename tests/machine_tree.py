"""A machine's /sys and /proc as files, to be changed as a test goes on."""

from pathlib import Path

from wattwork.conditions import TICKS_PER_S
from wattwork.machine import usable_threads


class MachineTree:
    """`root` holds what a bare-metal processor shows; each method moves one part of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock(3000)
        self.write("sys/class/hwmon/hwmon0/name", "nvme")
        self.write("sys/class/hwmon/hwmon0/temp1_input", 99_000)
        self.write("sys/class/hwmon/hwmon1/name", "coretemp")
        self.write("sys/class/hwmon/hwmon1/temp2_crit", 100_000)
        self.celsius(50)
        self.throttled(7)
        self.stat(busy_s=100.0, idle_s=900.0)

    def write(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    def clock(self, mhz: float) -> None:
        for cpu in usable_threads():
            self.write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", round(mhz * 1000))

    def celsius(self, degrees: float) -> None:
        self.write("sys/class/hwmon/hwmon1/temp1_input", round(degrees * 1000))

    def throttled(self, times: int) -> None:
        self.write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", times)

    def stat(self, busy_s: float, idle_s: float, steal_s: float = 0.0) -> None:
        user, idle, steal = (round(seconds * TICKS_PER_S) for seconds in (busy_s, idle_s, steal_s))
        self.write("proc/stat", f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 2 3")
