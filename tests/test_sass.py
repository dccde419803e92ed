"""The search kernels' machine code for sm_90, counted: what must hold before a GPU is at hand."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import sass_bound as sass

pytestmark = pytest.mark.core
LEAST_GH_S = {"search_plain": 10.0, "search_rolled": 11.5}


@pytest.fixture(scope="module")
def folder():
    """The pinned compiler's; `make test` brings it."""
    named = os.environ.get("WATTWORK_CUDA_BIN")
    if not named:
        pytest.skip("WATTWORK_CUDA_BIN names no CUDA compiler; `make test` brings one")
    return Path(named)


@pytest.fixture(scope="module")
def built(folder):
    return sass.bounds(folder)


@pytest.fixture(scope="module")
def without_polling(folder):
    return sass.bounds(folder, "-DWW_NO_POLL")


@pytest.mark.parametrize("name", LEAST_GH_S)
def test_the_bound_is_high_enough_also_with_upper_halves_at_half_rate(built, name):
    _, n = built[name]
    assert n.gh_s() >= LEAST_GH_S[name]
    assert n.gh_s(upper_cost=2) >= LEAST_GH_S[name]


@pytest.mark.parametrize("name", LEAST_GH_S)
def test_it_leaves_room_for_inference(built, name):
    kernel, _ = built[name]
    assert kernel.registers <= 64
    assert kernel.spills == 0
    assert kernel.shared <= 1024


@pytest.mark.parametrize("name", LEAST_GH_S)
def test_polling_costs_at_most_a_hundredth(built, without_polling, name):
    (kernel, n), (_, silent) = built[name], without_polling[name]
    assert sass.executed(kernel, sass.BATCH[name])["LDG.E.STRONG.GPU"] == 2  # the flag, in either compression
    assert 0 < n.all - silent.all <= 0.01 * n.all


@pytest.mark.parametrize("name", LEAST_GH_S)
def test_the_flags_latency_is_hidden(built, name):
    """From reading the flag to looking at it, within a hash: over 100 instructions of a warp, not a wait."""
    code = [text for _, _, text in built[name][0].code]
    reads = [i for i, text in enumerate(code) if text.startswith("LDG.E.STRONG.GPU")]
    distances = []
    for read in reads:
        register = code[read].split()[1].rstrip(",")
        uses = (i for i in range(read + 1, len(code)) if f"{register}," in code[i] or code[i].endswith(register))
        distances.append(next(uses) - read)
    assert len(reads) == 3  # and when the kernel starts
    assert sorted(distances)[1] >= 100


@pytest.mark.parametrize("name", LEAST_GH_S)
def test_the_hosts_memory_is_read_at_one_place_and_outside_the_loop(built, name):
    kernel, _ = built[name]
    assert sum(text.startswith("LDG.E.STRONG.SYS") for _, _, text in kernel.code) == 1
    assert "LDG.E.STRONG.SYS" not in sass.executed(kernel, sass.BATCH[name])


@pytest.mark.parametrize(
    ("arch", "variant"),
    [("sm_90", variant) for variant in sass.VARIANTS] + [(arch, "default") for arch in ("sm_80", "sm_86", "sm_89")],
)
def test_nothing_spills_anywhere(folder, arch, variant):
    for kernel in sass.compiled(folder, *sass.VARIANTS[variant], arch=arch).values():
        assert (kernel.spills, kernel.registers <= 64) == (0, True)


def test_the_compiler_takes_the_pipe_kernels(folder, tmp_path):
    sass.build(folder, tmp_path / "p.cubin", source="pipes.cu")


def kernel(*lines):
    return sass.Kernel([(16 * i, predicate, text) for i, (predicate, text) in enumerate(lines)], 32, 0, 0)


def test_loops_count_as_often_as_they_run_and_what_is_rare_not_at_all():
    outer, rare = [("", "LOP3.LUT R0, R0, R1, R2")] * 50, [("", "IADD3 R0, R0, R1, R2")] * 300
    inner = [("", "IMAD R0, R0, R1, R2")] * 2100
    head, claims = len(outer) + 2 + len(rare), ("", "ATOMG.E.ADD.64.STRONG.GPU PT, R0, desc[UR4][R2.64], R4")
    code = [*outer, ("@P0", f"BRA {16 * head:#x}"), claims, *rare, *inner]
    code += [("@!P1", f"BRA {16 * head:#x}"), ("@P2", "BRA 0x0"), ("", "EXIT")]
    executed = sass.executed(kernel(*code), batch=2)
    assert executed == {"LOP3.LUT": 25, "IMAD": 2100, "BRA": 2}
    n = sass.count(executed)
    assert (n.alu, n.fma, n.other, n.upper) == (25, 2100, 2, 0)
    assert n.gh_s() == pytest.approx(132 * 1.98 / (2100 / 64))


def test_an_instruction_without_a_pipe_is_refused():
    with pytest.raises(SystemExit, match=r"no pipe is known for QMMA\.SP"):
        sass.count(Counter({"IMAD": 1, "QMMA.SP": 1}))


def test_the_slowest_of_pipes_and_issue_is_the_bound():
    assert sass.Count(alu=640, fma=0, other=0, upper=0).gh_s() == pytest.approx(132 * 1.98 / 10)
    assert sass.Count(alu=0, fma=640, other=0, upper=64).gh_s(upper_cost=2) == pytest.approx(132 * 1.98 / 11)
    assert sass.Count(alu=600, fma=600, other=80, upper=0).gh_s() == pytest.approx(132 * 1.98 / 10)
