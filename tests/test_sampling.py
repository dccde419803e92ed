"""Sampling: the rules in NumPy, and the native twin draws the same tokens whatever it is batched with."""

import numpy as np
import pytest
from engine_driver import SMALL, Driver, loaded
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork._native import HAVE_CORE
from wattwork.engines import SAMPLING
from wattwork.engines.numpy_engine import NumPyEngine
from wattwork.engines.sampling import sample

if HAVE_CORE:
    from wattwork.engines.cpu_engine import CpuEngine

LOGITS = np.array([1.0, 3.0, 2.0, 3.0, -1.0], np.float32)
NONE = np.array([], np.int32)


def params(temperature=1.0, top_p=1.0, repetition_penalty=1.0, top_k=0, seed=0):
    return np.array([(temperature, top_p, repetition_penalty, top_k, seed)], SAMPLING)[0]


def drawn(n=4000, **changed):
    return np.bincount([sample(LOGITS, params(seed=s, **changed), NONE) for s in range(n)], minlength=5) / n


def test_greedy_takes_the_lowest_of_equal_logits():
    assert sample(LOGITS, None, NONE) == 1
    assert sample(LOGITS, params(temperature=0), NONE) == 1


def test_top_k_and_top_p_keep_what_they_say():
    assert drawn(200, top_k=1).tolist() == [0, 1, 0, 0, 0]
    assert (drawn(500, top_k=2) > 0).tolist() == [False, True, False, True, False]
    p = np.exp(LOGITS - LOGITS.max()) / np.exp(LOGITS - LOGITS.max()).sum()
    assert (drawn(500, top_p=float(p[1]) - 0.01) > 0).tolist() == [False, True, False, False, False]
    assert (drawn(500, top_p=float(p[1] + p[3]) + 0.01) > 0).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_frequencies_are_the_softmax(temperature):
    p = np.exp(LOGITS / temperature - 3 / temperature)
    p /= p.sum()
    assert abs(drawn(temperature=temperature) - p).max() < 5 * np.sqrt(0.25 / 4000)


def test_repetition_penalty_divides_the_positive_and_multiplies_the_negative():
    history = np.array([1, 1, 3, 4], np.int32)
    assert sample(LOGITS, params(repetition_penalty=100, top_k=1), history) == 2
    only = np.array([-1.0, -1.5], np.float32)
    assert sample(only, params(repetition_penalty=2, top_k=1), np.array([0], np.int32)) == 1


@pytest.mark.core
@settings(deadline=None, max_examples=40)
@given(
    batch=st.lists(
        st.tuples(
            st.floats(0, 3, width=32),
            st.floats(2**-6, 1, width=32),
            st.floats(0.5, 2, width=32),
            st.integers(0, 300),
            st.integers(0, 2**64 - 1),
        ),
        min_size=1,
        max_size=6,
    ),
    want_logits=st.booleans(),
)
def test_native_draws_what_the_rules_say_in_any_batch(small_engine, batch, want_logits):
    driver = Driver(small_engine, SMALL)
    feeds = {s: [7, 7, s + 20] for s in range(len(batch))}
    drawn, out = driver.batch(feeds, sampling=np.array(batch, SAMPLING))
    logits = out.logits
    if not want_logits:
        small_engine.step(drawn, out)  # for the logits
        out.logits = None
    small_engine.step(drawn, out)
    for s, sampling in enumerate(drawn.sampling):
        assert out.next_token[s] == sample(logits[s], sampling, np.array(feeds[s], np.int32))


@pytest.fixture(scope="module")
def small_engine():
    return loaded(CpuEngine(2), SMALL)


@pytest.mark.core
def test_a_sampled_sequence_is_the_same_alone_and_in_company():
    sampling = np.array([(1, 0.9, 1.1, 50, 42), (1, 1, 1, 0, 1), (0, 1, 1, 0, 0)], SAMPLING)
    tokens = []
    for company in (1, 3):
        driver, feeds, mine = Driver(loaded(CpuEngine(), SMALL), SMALL), {}, []
        feeds = {s: [5, 6, 7] for s in range(company)}
        for _ in range(20):
            answers = driver.step(feeds, sampling=sampling[:company])
            feeds = {s: [token] for s, (token, _) in answers.items()}
            mine.append(answers[0][0])
        tokens.append(mine)
    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) > 5


def test_the_numpy_engine_samples_too():
    driver = Driver(loaded(NumPyEngine(), SMALL), SMALL)
    sampling = np.array([(1, 1, 1, 0, seed) for seed in range(8)], SAMPLING)
    answers = driver.step({s: [1, 2, 3] for s in range(8)}, sampling=sampling)
    assert len({token for token, _ in answers.values()}) > 3
