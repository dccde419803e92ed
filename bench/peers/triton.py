"""NVIDIA Triton, as PyTriton ships it, under the measurements of common.py: a Python model over gRPC, and, through the
server library's C API, a backend in C++ in the caller's own process (triton_native.cpp).
"""

import asyncio
import ctypes
import json
import logging
import os
import shlex
import socket
import subprocess
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import common
import numpy as np
import pytriton
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

BURST, QUEUED, TIMED_QUEUED = 100_000, 100_000, 10_000  # in process
MODEL = f"""
backend: "noop" max_batch_size: {common.BATCH}
input [{{ name: "x" data_type: TYPE_INT32 dims: [1] }}]
output [{{ name: "y" data_type: TYPE_INT32 dims: [1] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
# A delay, since without one its batcher may sleep for half a second beside a full queue. A request's own timeout counts
# only where there is a default, and it is below that; with a default, in turn, batching is slower.
BATCHING = {
    "noop": "dynamic_batching { max_queue_delay_microseconds: 1000 }",
    "timed": """dynamic_batching { max_queue_delay_microseconds: 1000 default_queue_policy {
      timeout_action: REJECT allow_timeout_override: true default_timeout_microseconds: 3600000000 } }""",
}


def native():
    (library,) = Path(pytriton.__file__).parents[1].glob("nvidia_pytriton.libs/libtritonserver-*.so")
    with tempfile.TemporaryDirectory() as folder:
        models, backends = Path(folder, "models"), Path(folder, "backends")
        for name, batching in BATCHING.items():
            (models / name / "1").mkdir(parents=True)
            (models / name / "config.pbtxt").write_text(f'name: "{name}"{MODEL}{batching}')
        (backends / "noop").mkdir(parents=True)
        backend = backends / "noop" / "libtriton_noop.so"
        compiler = shlex.split(os.environ.get("CXX") or sysconfig.get_config_var("CXX"))[0]
        source = Path(__file__).with_name("triton_native.cpp")
        flags = ["-std=c++20", "-O2", "-shared", "-fPIC", "-pthread"]
        subprocess.run([compiler, *flags, source, library, "-o", backend], check=True)
        ours = ctypes.CDLL(str(backend))
        ours.burst.restype = ctypes.c_double
        ours.start(str(models).encode(), str(backends).encode())

        ours.burst(BURST)  # a first one, not counted
        burst = {"n": BURST, "per_s": BURST / ours.burst(BURST)}
        n = common.SAMPLES
        returned, told = (ctypes.c_double * n)(), (ctypes.c_double * n)()
        in_time, executed = (ctypes.c_int * n)(), (ctypes.c_int * n)()
        told_s, hold_s = ctypes.c_double(common.TOLD_S), ctypes.c_double(common.HOLD_S)
        ours.cancels(QUEUED, n, told_s, hold_s, returned, told, in_time, executed)
        cancel = {
            "queued": QUEUED,
            "samples": n,
            "returned_us": median(returned) * 1e6,
            "told_us": median(told) * 1e6,
            "told_while_blocked": sum(in_time),
            "executed": sum(executed),
        }
        ours.use(b"timed")
        ours.timeouts(TIMED_QUEUED, n, ctypes.c_double(common.TIMEOUT_S), hold_s, told, in_time, executed)
        timeout = {
            "queued": TIMED_QUEUED,
            "samples": n,
            "p50_ms": median(told) * 1e3,
            "p90_ms": quantiles(told, n=10)[-1] * 1e3,
            "told_while_blocked": sum(in_time),
            "executed": sum(executed),
        }
        ours.stop()
    return {"burst": burst, "asyncio": None, "cancel": cancel, "timeout": timeout}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def request(id):
    x = InferInput("x", [1, 1], "INT32")
    x.set_data_from_numpy(np.array([[id]], np.int32))
    return [x]


async def over_grpc(model, port):
    async with InferenceServerClient(f"127.0.0.1:{port}") as server:

        async def call(id, **options):
            answer = await server.infer("noop", request(id), **options)
            return answer.as_numpy("y")[0, 0]

        class Client(common.Client):
            settle_s = 10.0

            async def call_within(self, id, seconds):
                await call(id, client_timeout=seconds)

        return await common.everything(Client(model, call), burst_n=5000, closed_n=5000, queued=5000)


def grpc():
    logging.disable(logging.WARNING)
    model = common.Model()

    @batch
    def step(x):
        return [np.array(model.step(x[:, 0].tolist()), np.int32)[:, None]]

    config = TritonConfig(http_port=free_port(), grpc_port=free_port(), metrics_port=free_port(), log_verbose=0)
    tensors = {"inputs": [Tensor(name="x", dtype=np.int32, shape=(1,))]}
    tensors["outputs"] = [Tensor(name="y", dtype=np.int32, shape=(1,))]
    with Triton(config=config) as triton:
        batching = ModelConfig(max_batch_size=common.BATCH, batcher=DynamicBatcher())
        triton.bind(model_name="noop", infer_func=step, config=batching, **tensors)
        triton.run()
        return asyncio.run(over_grpc(model, config.grpc_port))


if __name__ == "__main__":
    rows = {"triton, in process in C++": native(), "triton, gRPC": grpc()}
    print(json.dumps({"version": version("nvidia-pytriton"), "rows": rows}))
