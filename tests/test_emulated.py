"""Other processors than this one, under qemu: AArch64, for which the core is cross-compiled, and older x86.

A missing emulator or compiler is a failure, not a skip: `make test-emulated` fetches them.
"""

import json
import os
import platform
import random
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
from headers import GENESIS, mainnet_headers, oracle, sha256d
from test_abi import assert_shares_nothing

from wattwork.work import Work

pytestmark = [pytest.mark.emulated, pytest.mark.core]
CHECKOUT = Path(__file__).parent.parent
BUILD = CHECKOUT / "build" / "aarch64"
END = 2**32
CPP_TESTS = sorted(file.stem for file in (CHECKOUT / "tests" / "cpp").glob("test_*.cpp"))
ARM_ISAS = ["armv8", "neon", "portable"]
per_arm_isa = pytest.mark.parametrize("isa", ARM_ISAS)


def tool(*names):
    found = next(filter(None, map(which, names)), None)
    assert found, f"{names[0]} is not on the PATH; `make test-emulated` fetches it"
    return found


# ---- AArch64 ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usr():
    """/usr, or that of a folder in which the cross compiler was unpacked."""
    return Path(tool("aarch64-linux-gnu-g++")).resolve().parents[1]


@pytest.fixture(scope="module")
def cross(usr):
    """The environment for the cross compiler: its libraries, CMake and ninja."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(usr / "lib" / "x86_64-linux-gnu")}


@pytest.fixture(scope="module")
def aarch64(usr, cross):
    """The core and its C++ tests, built for AArch64; the emulator's command line."""
    options = ["--toolchain", "tests/aarch64.cmake", "-DWATTWORK_TESTS=ON", "-DWATTWORK_WERROR=ON"]
    for command in (["cmake", "-S", ".", "-B", BUILD, "-G", "Ninja", *options], ["cmake", "--build", BUILD]):
        done = subprocess.run(command, cwd=CHECKOUT, env=cross, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stdout + done.stderr
    return [tool("qemu-aarch64", "qemu-aarch64-static"), "-L", usr / "aarch64-linux-gnu"]


@pytest.mark.parametrize("name", CPP_TESTS)
def test_cpp_on_aarch64(aarch64, name):
    emulated = {**os.environ, "WATTWORK_TEST_EMULATED": "1"}
    done = subprocess.run(
        [*aarch64, BUILD / name], env=emulated, capture_output=True, text=True, check=False, timeout=300
    )
    assert not done.returncode, done.stdout + done.stderr


def searched(aarch64, searches):
    """The instruction sets there, and (hashes, hits) of each (isa, work, first, count, version_first, versions)."""
    lines = "".join(
        f"{isa} {work.header.hex()} {work.target.to_bytes(32, 'little').hex()} {work.version_mask} "
        f"{' '.join(map(str, rect))}\n"
        for isa, work, *rect in searches
    )
    done = subprocess.run([*aarch64, BUILD / "searches"], input=lines, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    isas, *answers = (line.split() for line in done.stdout.splitlines())
    return isas, [
        (int(a[0]), tuple((int(n), int(v), bytes.fromhex(h)) for n, v, h in zip(*[iter(a[1:])] * 3, strict=True)))
        for a in answers
    ]


def test_isas_on_aarch64(aarch64):
    assert sorted(searched(aarch64, [])[0]) == ARM_ISAS


@per_arm_isa
def test_all_mainnet_headers_on_aarch64(aarch64, isa):
    """Plain around the true nonce; then the header's own version among others, and past full strips."""
    searches, expected = [], []
    for i, header in enumerate(mainnet_headers()):
        work = Work.from_header(header, version_mask=0x1FFFE000)
        for reach, versions in ((100 + i % 64, 1), (3 + i % 5, 37)):
            first = max(work.nonce - reach, 0)
            count = min(work.nonce + reach, END) - first
            searches.append((isa, work, first, count, 0, versions))
            expected.append((count * versions, ((work.nonce, work.version, sha256d(header)),)))
    assert searched(aarch64, searches)[1] == expected


@per_arm_isa
def test_random_work_on_aarch64(aarch64, isa):
    """Any target, mask and rectangle, up to the last nonce, against hashlib."""
    draw, searches, expected = random.Random(1), [], []
    for _ in range(150):
        mask = draw.choice([0, 0xFF, 0x80808083, 0x1FFFE000, 0xFFFFFFFF])
        work = Work.from_header(
            draw.randbytes(80), target=draw.getrandbits(draw.randrange(244, 257)) | 1, version_mask=mask
        )
        count, most = draw.choice([(draw.randrange(200), 2), (draw.randrange(20), 70)])
        versions = min(draw.randrange(1, most + 1), work.versions)
        first = draw.choice([draw.randrange(END - count), END - count])
        rect = (first, count, draw.randrange(work.versions - versions + 1), versions)
        searches.append((isa, work, *rect))
        expected.append((count * versions, oracle(work, *rect)))
    assert searched(aarch64, searches)[1] == expected


def test_object_files_of_aarch64_share_nothing(aarch64, cross):
    objects = BUILD.glob("CMakeFiles/libwattwork.dir/csrc/**/*.cpp.o")
    assert_shares_nothing(objects, tool("aarch64-linux-gnu-nm"), env=cross)


# ---- older x86 --------------------------------------------------------------------------------------------------
# What each has is told by CPUID, which qemu answers; /proc/cpuinfo is the host's. qemu has no AVX-512: a wrong choice
# dies of SIGILL. One process, as a child would leave the emulation.

OLDER = {
    "Nehalem": {"portable"},
    "SandyBridge": {"portable"},  # AVX, but not AVX2
    "Haswell": {"portable", "avx2"},
    "EPYC": {"portable", "avx2", "shani"},
}
CHOICE = f"""
import json
from wattwork import Work, isas, search
from wattwork._native import core
from wattwork.engines.cpu_engine import CpuEngine
from wattwork.errors import UnsupportedISA
work = Work.from_header(bytes.fromhex("{GENESIS.hex()}"))
found = {{isa: search(work, work.nonce - 500, 1001, isa=isa).hits[0].nonce for isa in isas()[:-2]}}
said = []
for isa in ("avx512", "armv8", "neon"):
    try:
        search(work, 0, 10, isa=isa)
    except UnsupportedISA as error:
        said.append(str(error))
print(json.dumps([found, said, core.decoder_isas(), CpuEngine().isa]))
"""
REUSED = "golden and small or last_nonces or versions_side_by_side and 255"


@pytest.fixture(params=OLDER)
def older(request):
    """(qemu's command line for that processor, what it has)."""
    assert platform.machine() == "x86_64", "older x86 are emulated for this machine's own Python"
    emulator, isas = tool("qemu-x86_64", "qemu-x86_64-static"), set(OLDER[request.param])
    version = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout
    if int(re.search(r"version (\d+)", version).group(1)) < 10:
        isas.discard("shani")  # not in its EPYC
    return [emulator, "-cpu", request.param, sys.executable], isas


def test_the_choice_on_older_x86(older):
    emulated, isas = older
    done = subprocess.run([*emulated, "-c", CHOICE], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found, said, decoder, chosen = json.loads(done.stdout)
    assert found == dict.fromkeys(found, 2083236893)
    assert set(found) == isas
    assert ["unknown or not usable here" in sentence for sentence in said] == [True] * 3
    assert decoder == [isa for isa in ("avx2", "portable") if isa in isas]
    assert chosen == decoder[0]


def test_search_and_decoder_on_older_x86(older):
    """Tests of this suite, within the emulation: exact hits, and the decoder's golden tokens."""
    emulated, _ = older
    files = [CHECKOUT / "tests" / name for name in ("test_search.py", "test_engines.py")]
    chosen = ["-k", f"({REUSED}) and not numpy and not numba", "--rootdir", CHECKOUT]
    done = subprocess.run(
        [*emulated, "-m", "pytest", "-q", *chosen, *files], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
