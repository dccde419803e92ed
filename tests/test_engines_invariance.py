"""The native engine gives bitwise the same tokens and logits under any batching, chunking, threads and blocks."""

import numpy as np
import pytest
from engine_driver import SMALL, WIDE, Driver, loaded, prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork._native import HAVE_CORE, core
from wattwork.engines import PRESETS

if HAVE_CORE:
    from wattwork.engines.cpu_engine import CpuEngine

pytestmark = pytest.mark.core
ISAS = core.decoder_isas() if HAVE_CORE else ["none"]
LENGTHS = [3, 1, 16, 33, 40, 17, 90, 8] * 4


def alone(isa, config, sequences, n):
    """Each sequence by itself, on one thread."""
    driver = Driver(loaded(CpuEngine(1, isa=isa), config), config, blocks=256)
    return [driver.generate(prompt, n, s) for s, prompt in enumerate(sequences)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("config", [SMALL, WIDE, PRESETS["tiny-15m"]], ids=lambda c: c.name)
def test_batch_of_32_on_two_threads_is_32_times_one(isa, config):
    sequences = prompts(config, LENGTHS)
    expected = alone(isa, config, sequences, 4)
    driver = Driver(loaded(CpuEngine(2, isa=isa), config), config, blocks=256, seed=9)
    feeds = dict(enumerate(sequences))
    for i in range(4):
        answers = driver.step(feeds)
        for s, (token, logits) in answers.items():
            assert token == expected[s][0][i]
            assert logits.tobytes() == expected[s][1][i].tobytes()
        feeds = {s: [token] for s, (token, _) in answers.items()}


def schedule(draw, sequences):
    """Steps of random chunks of random sequences, until all prompts are in."""
    left = {s: list(prompt) for s, prompt in enumerate(sequences)}
    while left:
        chosen = draw(st.lists(st.sampled_from(sorted(left)), min_size=1, unique=True))
        feeds = {}
        for s in chosen:
            n = draw(st.integers(1, len(left[s])))
            feeds[s], left[s] = left[s][:n], left[s][n:]
            if not left[s]:
                del left[s]
        yield feeds


@pytest.fixture(scope="module")
def expected():
    sequences = prompts(SMALL, [40, 7, 65, 18, 33])
    return sequences, alone(ISAS[0], SMALL, sequences, 1)


@settings(deadline=None, max_examples=25)
@given(data=st.data(), threads=st.integers(1, 2), seed=st.integers(0, 99))
def test_any_schedule_of_chunks_gives_the_same_bits(expected, data, threads, seed):
    sequences, answers = expected
    driver = Driver(loaded(CpuEngine(threads), SMALL), SMALL, seed=seed)
    for feeds in schedule(data.draw, sequences):
        for s, (token, logits) in driver.step(feeds).items():
            if len(driver.tokens[s]) == len(sequences[s]):
                assert token == answers[s][0][0]
                assert logits.tobytes() == answers[s][1][0].tobytes()


def test_steps_longer_than_a_slice_and_long_contexts_give_the_same_bits():
    config = PRESETS["tiny-15m"]
    sequences = prompts(config, [1300, 900, 5])
    expected = alone(ISAS[0], config, [sequences[0][:700], sequences[1], sequences[2]], 1)
    whole = Driver(loaded(CpuEngine(2), config), config, blocks=200)
    answers = whole.step({0: sequences[0][:700], 1: sequences[1], 2: sequences[2]})
    for s in range(3):
        assert answers[s][1].tobytes() == expected[s][1][0].tobytes()
    once = whole.step({0: sequences[0][700:]})[0][1]
    chunked = Driver(loaded(CpuEngine(1), config), config, blocks=200, seed=5)
    for first in range(0, 1300, 333):
        twice = chunked.step({0: sequences[0][first : first + 333]})[0][1]
    assert once.tobytes() == twice.tobytes()


def test_the_same_dummy_weights_on_any_threads():
    logits = [Driver(loaded(CpuEngine(n), WIDE, 2), WIDE).generate([1, 2, 3], 2)[1] for n in (1, 2)]
    assert np.array_equal(logits[0], logits[1])
