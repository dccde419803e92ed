"""The GPU search without a GPU: the host's side on a fake driver, in its own processes, and each error's sentence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import wattwork
from wattwork import cuda
from wattwork._native import core
from wattwork.errors import DeviceError, InvalidInput
from wattwork.work import Work

TESTS = Path(__file__).parent
PACKAGE = Path(wattwork.__file__).parent
WORK = Work.from_header(bytes(80), target=1)


@pytest.fixture(scope="session")
def fake(tmp_path_factory):
    """The folder of a libcuda.so.1 that pretends to be NVIDIA's."""
    folder = tmp_path_factory.mktemp("fake_cuda")
    sources = sorted((TESTS / "fake_cuda").glob("*.cpp"))
    command = ["c++", "-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, *sources, "-o", folder / "libcuda.so.1"], check=True)
    (folder / "any.cubin").write_text("the fake driver loads anything")
    return folder


def environment(folder, **more):
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    cubin = str(folder / "any.cubin")
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": path, "WATTWORK_CUBIN": cubin, **more}


def check(folder, *arguments, **more):
    """The output of one of cuda_checks' functions in a process of its own."""
    command = [sys.executable, TESTS / "cuda_checks.py", *arguments]
    run = subprocess.run(
        command, env=environment(folder, **more), capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.core
@pytest.mark.parametrize(
    "name",
    [
        "random_work",
        "stopped_at_a_random_moment",
        "stop_set_beforehand",
        "an_overflow_loses_nothing",
        "easiest_target",
        "searches_side_by_side",
        "jobs",
        "a_device_that_hashes",
        "yields_of_a_job",
        "nothing_is_opened_before_it_is_asked_for",
        "the_callers_context_is_left_alone",
        "fronts_keep_hashing_away",
        "hashing_goes_on_without_the_cpu",
        "a_front_that_never_ends_holds_up_nothing_else",
        "too_many_fronts_are_refused",
        "a_throttled_back",
    ],
)
def test_on_the_fake_driver(fake, name):
    check(fake, name)


@pytest.mark.core
def test_a_driver_without_memory_operations(fake):
    for name in ("without_memory_operations", "stopped_at_a_random_moment", "jobs", "yields_of_a_job"):
        check(fake, name, FAKE_CUDA_MEMOPS="0")


@pytest.mark.core
def test_sms_that_a_job_may_use(fake):
    check(fake, "sms_that_a_job_may_use", FAKE_CUDA_SMS="4")


@pytest.mark.core
def test_public_search(fake):
    check(fake, "public_search", FAKE_CUDA_DEVICES="2")


@pytest.mark.core
@pytest.mark.parametrize("count", ["1", "2", "3"])
def test_all_gpus_search_together(fake, count):
    check(fake, "all_gpus", FAKE_CUDA_DEVICES=count)


@pytest.mark.core
def test_one_of_several_gpus_fails(fake):
    said = check(fake, "said", "cuda", FAKE_CUDA_DEVICES="3", FAKE_CUDA_FAULT="cuLaunchKernel:719:4")
    assert re.match(r"DeviceError: cuda:\d: the GPU failed at cuLaunchKernel \(unspecified", said)
    assert "finds no GPU here" in check(fake, "said", "cuda", FAKE_CUDA_DEVICES="0")


@pytest.mark.core
@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"FAKE_CUDA_VERSION": "11040"},
            "the NVIDIA driver here is of CUDA 11.4, and wattwork needs CUDA 12.0 or later",
        ),
        ({"FAKE_CUDA_DEVICES": "0"}, "finds no GPU here"),
        ({"FAKE_CUDA_FAULT": "cuInit:803"}, "does not start (system has unsupported display driver"),
        ({"FAKE_CUDA_DEVICES": "1"}, "there is no GPU cuda:7 here; choose cuda:0."),
        ({"FAKE_CUDA_DEVICES": "3"}, "there is no GPU cuda:7 here; choose one of cuda:0 to cuda:2."),
    ],
)
def test_a_gpu_that_is_not_here(fake, environ, sentence):
    said = check(fake, "said", "cuda:7", **environ)
    assert said.startswith("DeviceError: ")
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.core
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("cuModuleLoadData:209", "there is none for this Fake GPU 0 (sm_75)"),
        ("cuModuleLoadData:222", "the NVIDIA driver here is too old for wattwork's GPU kernels on this Fake GPU 0"),
        ("cuModuleLoadData:200", "the NVIDIA driver here is too old for wattwork's GPU kernels on this Fake GPU 0"),
        ("cuMemAlloc_v2:2", "the GPU has no memory left (cuMemAlloc_v2)"),
        ("cuMemAlloc_v2:2:3", "the GPU has no memory left (cuMemAlloc_v2)"),
        ("cuMemAllocHost_v2:2:2", "the GPU has no memory left (cuMemAllocHost_v2)"),
        ("cuLaunchKernel:719", "the GPU failed at cuLaunchKernel (unspecified launch failure, CUDA error 719)"),
        ("cuLaunchKernel:719:2", "the GPU failed at cuLaunchKernel (unspecified launch failure, CUDA error 719)"),
        ("cuMemcpyDtoHAsync_v2:700:2", "the GPU failed at cuMemcpyDtoHAsync_v2 (an illegal memory access"),
        ("kernel:700:1", "(an illegal memory access was encountered, CUDA error 700)"),
    ],
)
def test_a_gpu_that_fails(fake, fault, sentence):
    said = check(fake, "said", "cuda:0", FAKE_CUDA_FAULT=fault, FAKE_CUDA_SM="75")
    assert said.startswith("DeviceError: ")
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.core
def test_a_back_that_fails(fake):
    assert "an illegal memory access" in check(fake, "a_device_that_fails", FAKE_CUDA_FAULT="kernel:700:3")


@pytest.mark.core
def test_wattwork_hash_on_a_gpu(fake):
    def hash_(*options):
        target = ["--bits", "1f00ffff", "--version-mask", "1fffe000", "--count", "1000", "--versions", "300"]
        command = [sys.executable, "-m", "wattwork", "hash", *target, *options]
        return subprocess.run(command, env=environment(fake), capture_output=True, text=True, check=False)

    gpu, cpu = (json.loads(hash_("--device", name, "--json", "-").stdout) for name in ("cuda:0", "cpu"))
    assert (gpu["device"], gpu["isa"], gpu["threads"], gpu["hashes"]) == ("cuda:0", "sm_90", None, 300_000)
    assert gpu["hits"]
    assert sorted(map(str, gpu["hits"])) == sorted(map(str, cpu["hits"]))
    assert "sm_90 on cuda:0" in hash_("--device", "cuda:0").stdout
    both = json.loads(hash_("--device", "cuda", "--json", "-").stdout)
    assert (both["device"], sorted(map(str, both["hits"]))) == ("cuda", sorted(map(str, gpu["hits"])))
    refused = hash_("--device", "cuda:0", "--threads", "2")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.core
def test_no_driver(tmp_path):
    """A file that does not load comes before any driver this machine may have."""
    (tmp_path / "libcuda.so.1").write_text("no library")
    said = check(tmp_path, "said", "cuda:0", WATTWORK_CUBIN="")
    assert said.startswith("DeviceError: there is no NVIDIA driver here (")
    assert said.endswith("install one, or use device 'cpu'.\n")


@pytest.mark.core
def test_kernels_are_built_in_or_the_extra_is_named(fake):
    said = check(fake, "said", "cuda:0", WATTWORK_CUBIN="")
    if core.gpu_kernels_built_in() or find_spec("cupy_backends"):
        assert said == "no error\n"
    else:
        assert said.startswith("DeviceError: no GPU kernels are built in")
        assert "wattwork[cuda13]" in said


@pytest.mark.core
def test_a_cubin_that_is_not_there(fake):
    assert "WATTWORK_CUBIN=/nonesuch: No such file" in check(fake, "said", "cuda:0", WATTWORK_CUBIN="/nonesuch")


@pytest.mark.skipif(not find_spec("cupy_backends"), reason="CuPy (wattwork[cuda13]) is not installed")
def test_nvrtc_compiles_the_kernels():
    assert cuda.compiled("sm_90").startswith(b"\x7fELF")


@pytest.mark.core
def test_a_fork_is_refused(fake):
    assert "CUDA does not survive a fork" in check(fake, "a_fork_is_refused")


@pytest.mark.core
@pytest.mark.parametrize("device", ["cuda:0", "cuda"])
def test_ctrl_c(fake, device):
    command, env = [sys.executable, TESTS / "cuda_checks.py", "until_interrupted", device], environment(fake)
    env["FAKE_CUDA_DEVICES"] = "2"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as child:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in error
    assert child.returncode in (1, -signal.SIGINT)


@pytest.mark.core
def test_devices_lists_gpus_or_says_why_not(fake):
    def devices(**more):
        command = [sys.executable, "-m", "wattwork", "devices"]
        env = environment(fake, COLUMNS="200", **more)
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    listed = devices(FAKE_CUDA_DEVICES="2")
    assert "cuda:1" in listed
    assert "Fake GPU 1 (sm_90), 2 SMs, 8.0 GiB" in listed
    assert "finds no GPU here" in devices(FAKE_CUDA_DEVICES="0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"device": "gpu"}, "there is no device 'gpu' for this; choose 'cpu', or a GPU"),
        ({"device": "cuda:x"}, "there is no device 'cuda:x'"),
        ({"device": "cuda:0", "isa": "portable"}, "isa is of device 'cpu': leave it out with 'cuda:0'"),
        ({"device": "cuda:0", "threads": 2}, "threads is of device 'cpu'"),
    ],
)
def test_arguments_refused(arguments, words):
    with pytest.raises(InvalidInput, match=words):
        wattwork.search(WORK, 0, 10, **arguments)


def test_a_job_on_the_cpu_has_no_streams_and_no_sms():
    job = wattwork.Job(WORK)
    for call in (job.front_begin, job.front_end):
        with pytest.raises(InvalidInput, match="a stream is a GPU's: make the job with device='cuda:0'"):
            call(0)
    with pytest.raises(InvalidInput, match="sms is of a GPU: leave it out with device 'cpu'"):
        wattwork.Job(WORK, sms=1)


def test_without_the_core(monkeypatch):
    monkeypatch.setattr(cuda, "HAVE_CORE", False)
    with pytest.raises(DeviceError, match="needs wattwork's native core"):
        wattwork.search(WORK, 0, 10, device="cuda:0")


@pytest.mark.core
def test_nothing_of_cuda_is_linked():
    for library in (PACKAGE / "libwattwork.so", *PACKAGE.glob("_core*.so")):
        needed = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
        assert "(NEEDED)" in needed
        assert "cuda" not in needed.lower()


@pytest.mark.core
def test_the_kernels_sources_are_installed():
    sources = TESTS.parent / "kernels"
    for source in (sources / "sha256d.cu", *sources.glob("*.h")):
        assert (cuda.KERNELS / source.name).read_bytes() == source.read_bytes()
