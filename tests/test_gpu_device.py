"""A GPU that hashes, infers and mixes, without one: on the fake driver, with an engine that only says it is there."""

import os
import subprocess
import sys

import pytest
from test_cuda import TESTS, environment, fake
from test_nvml import library

__all__ = ["fake", "library"]  # pytest's fixtures

pytestmark = pytest.mark.core


def check(env, name):
    command = [sys.executable, TESTS / "gpu_device_checks.py", name]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("name", ["modes", "beside_a_step", "tokens", "bounds_of_a_gpu", "refusals"])
def test_on_the_fake_driver(fake, name):
    check(environment(fake), name)


def test_compare_tells_how_the_gpu_stands(fake, library):
    """Where NVML is, that is; and compares all the same where it is not."""
    env = environment(fake)
    (fake / "libnvidia-ml.so.1").write_text("no library")
    assert check(env, "compare") == "None None None None\n"
    env["LD_LIBRARY_PATH"] = os.pathsep.join([str(library), env["LD_LIBRARY_PATH"]])
    limit_w, celsius, sm_mhz, memory_mhz = check(env, "compare").split()
    assert float(limit_w) == 700
    assert int(celsius) > 0
    assert int(sm_mhz) > 0
    assert int(memory_mhz) > 0


def compare(env, *options):
    """What `wattwork compare cuda:0` says where it cannot: one sentence."""
    command = [sys.executable, "-m", "wattwork", "compare", "cuda:0", *options]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr


def test_what_is_not_here_is_one_sentence(fake, library, tmp_path):
    env = environment(fake)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    without_torch = {**env, "PYTHONPATH": os.pathsep.join([str(tmp_path), env["PYTHONPATH"]])}
    assert "needs PyTorch: pip install 'wattwork[torch]'" in compare(without_torch, "--watts", "100")
    assert "finds no GPU here" in compare({**env, "FAKE_CUDA_DEVICES": "0"})
    assert "threads is of device 'cpu'" in compare(env, "--threads", "2")
    (tmp_path / "libcuda.so.1").write_text("no library")
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    no_driver = {**env, "LD_LIBRARY_PATH": str(tmp_path), "WATTWORK_CUBIN": ""}
    assert "there is no NVIDIA driver here" in compare(no_driver)
    no_nvml = {**env, "LD_LIBRARY_PATH": os.pathsep.join([env["LD_LIBRARY_PATH"], str(tmp_path)])}
    assert "libnvidia-ml.so.1 is missing" in compare(no_nvml)
