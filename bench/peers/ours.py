"""wattwork's own scheduler under the measurements of common.py, with an engine in C++ and with one in Python."""

import asyncio
import ctypes
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import common

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_threads import build, run

import wattwork
from wattwork.engines.base import Caps
from wattwork.scheduler import Scheduler, SchedulerConfig

BURST, CLOSED = 100_000, 50_000
CANCEL_QUEUED, TIMEOUT_QUEUED = 1_000_000, 100_000
CONFIG = SchedulerConfig(
    max_num_seqs=common.BATCH,
    max_num_batched_tokens=common.BATCH,
    max_num_queued_reqs=2**31 - 1,
    max_num_queued_tokens=2**31 - 1,
    block_size=16,
    num_blocks=common.BATCH,
    max_model_len=16,
)
CAPS = Caps(CONFIG.max_num_seqs, CONFIG.max_num_batched_tokens, CONFIG.max_model_len, 16, True, "i32", "cpu")


class NativeModel:
    """noop_engine.cpp, as an engine for the scheduler and as the measurements' model."""

    caps = CAPS

    def __init__(self, folder):
        library = Path(folder) / "libnoop_engine.so"
        compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX"))[0]
        source = Path(__file__).with_name("noop_engine.cpp")
        flags = ["-std=c++20", "-O2", "-shared", "-fPIC", f"-I{wattwork.include_dir()}"]
        subprocess.run([compiler, *flags, source, "-o", library], check=True)
        self.library = ctypes.CDLL(str(library))
        self.native = ctypes.addressof(ctypes.c_char.in_dll(self.library, "engine"))
        self.native_owner = self.library
        self.block, self.let_go, self.is_stepping = self.library.block, self.library.let_go, self.library.is_stepping
        self.gate = SimpleNamespace(is_set=lambda: not self.library.is_blocked())

    def executed(self, ids):
        return sum(map(self.library.was_seen, ids))


class PythonModel(common.Model):
    caps = CAPS

    def step(self, batch, out):
        out.next_token[:] = super().step(batch.tokens.tolist())

    def sync(self):
        pass


class Client:
    settle_s = 0.0

    def __init__(self, scheduler, model):
        self.scheduler, self.model = scheduler, model

    def submit(self, id, timeout_ms=None):
        return self.scheduler.submit([id], max_tokens=1, timeout_ms=timeout_ms)

    def future(self, handle):
        async def end():
            return await handle

        return asyncio.ensure_future(end())

    def cancel(self, handle):
        handle.cancel()

    async def call(self, id):
        return await self.scheduler.submit([id], max_tokens=1)

    async def call_within(self, id, seconds):
        return await self.submit(id, seconds * 1e3)

    async def finish(self, _handles):
        await asyncio.to_thread(self.scheduler.drain)


def burst(scheduler, n):
    """Requests per second from one thread: submit() of all, then result() of all."""
    start = time.perf_counter()
    for handle in [scheduler.submit([i], max_tokens=1) for i in range(n)]:
        handle.result()
    return {"n": n, "per_s": n / (time.perf_counter() - start)}


async def awaited(scheduler, model):
    client = Client(scheduler, model)
    return {
        "asyncio": await common.closed(client, CLOSED),
        "cancel": await common.cancel(client, CANCEL_QUEUED),
        "timeout": await common.timeout(client, TIMEOUT_QUEUED),
    }


def everything(model):
    with Scheduler(CONFIG, model) as scheduler:
        burst(scheduler, BURST)  # a first one, not counted
        return {"burst": burst(scheduler, BURST), **asyncio.run(awaited(scheduler, model))}


def without_python(folder):
    """The same burst from C++: ../bursts.cpp, whose first one is not counted either."""
    program = build("bursts.cpp", Path(folder))
    per_s = run(program, BURST, 2, 0)[1]
    return {"burst": {"n": BURST, "per_s": per_s}, "asyncio": None, "cancel": None, "timeout": None}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        rows = {
            "wattwork, from C++": without_python(folder),
            "wattwork, engine in C++": everything(NativeModel(folder)),
            "wattwork, engine in Python": everything(PythonModel()),
        }
    print(json.dumps({"version": version("wattwork"), "rows": rows}))
