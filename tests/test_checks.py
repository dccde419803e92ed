"""What a batch must be, checked for all sequences at once: the same sentences as one sequence after another."""

import dataclasses

import numpy as np
import pytest
from engine_driver import SMALL, Driver
from hypothesis import given, settings
from hypothesis import strategies as st

from wattwork.engines import SAMPLING, Out
from wattwork.engines.base import Caps
from wattwork.engines.checks import check_batch
from wattwork.errors import InvalidInput

BLOCKS, BLOCK = 64, 16
CAPS = Caps(64, 512, SMALL.context, BLOCK, True, "f32", "cpu")


class NoEngine:
    """For the Driver, which only makes batches here."""

    def alloc_kv(self, budget_bytes):
        return BLOCKS


def one_by_one(config, block, n_blocks, batch):
    """The first fault's sentence, sequence after sequence; None: there is none."""
    for i in range(len(batch.ctx_len)):
        first, stop, context = int(batch.q_start[i]), int(batch.q_start[i + 1]), int(batch.ctx_len[i])
        total, row = context + stop - first, batch.block_table[i]
        used = -(-total // block)
        if not (context >= 0 and total <= config.context):
            return f"sequence {i}: ctx_len plus its tokens must be within the model's context of {config.context}."
        if batch.sampling is not None:
            s = batch.sampling[i]
            if not (
                0 <= s["temperature"] < np.inf
                and 0 < s["top_p"] <= 1
                and s["top_k"] >= 0
                and 0 < s["repetition_penalty"] < np.inf
            ):
                rule = "temperature >= 0, 0 < top_p <= 1, top_k >= 0 and repetition_penalty > 0."
                return f"sequence {i}: sampling needs {rule}"
        if used > len(row):
            return f"sequence {i}: block_table has too few columns for its positions."
        if not ((row[:used] >= 0) & (row[:used] < n_blocks)).all():
            return f"sequence {i}: block_table must hold block ids below {n_blocks}."
        at = np.arange(context, total)
        if not (batch.slot_map[first:stop] == row[at // block] * block + at % block).all():
            rule = f"block * {block} + offset of the token's position in block_table."
            return f"sequence {i}: slot_map must be {rule}"
    return None


def said(batch):
    try:
        check_batch(SMALL, CAPS, BLOCKS, batch, Out(np.zeros(len(batch.ctx_len), np.int32)))
    except InvalidInput as error:
        return str(error)
    return None


ODD = [-(2**31), -1, 0, 1, 15, 16, 63, 64, 255, 256, 257, 2**31 - 1]
FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["ctx_len", "block_table", "slot_map", "temperature", "top_p", "top_k", "repetition_penalty"]),
        st.integers(0, 2**20),
        st.sampled_from(ODD) | st.integers(0, 300),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=400)
@given(
    known=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    new=st.lists(st.integers(1, 20), min_size=12, max_size=12),
    columns=st.none() | st.integers(0, 4),
    sampled=st.booleans(),
    faults=FAULTS,
)
def test_all_at_once_says_what_one_by_one_does(known, new, columns, sampled, faults):
    driver = Driver(NoEngine(), SMALL, blocks=BLOCKS)
    for s, n in enumerate(known):
        if n:
            driver.batch({s: [0] * n})
            driver.tokens[s] = [0] * n
    batch, _ = driver.batch({s: [1] * n for s, n in zip(range(len(known)), new, strict=False)})
    sampling = np.array([(0.5, 0.9, 1.1, 3, s) for s in range(len(known))], SAMPLING)
    table = np.ascontiguousarray(batch.block_table[:, :columns])
    batch = dataclasses.replace(batch, block_table=table, sampling=sampling if sampled else None)
    assert columns is not None or said(batch) is None
    for name, at, value in faults:
        array = sampling[name] if name in sampling.dtype.names else getattr(batch, name)
        if array.size:
            array.reshape(-1)[at % array.size] = value
    expected = one_by_one(SMALL, BLOCK, BLOCKS, batch)
    if expected is None and len(set(batch.slot_map.tolist())) < len(batch.slot_map):
        expected = "two tokens of the step go to the same slot."
    assert said(batch) == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sampling_that_is_no_number(bad):
    driver = Driver(NoEngine(), SMALL, blocks=BLOCKS)
    batch, _ = driver.batch({0: [1], 1: [2]}, sampling=np.array([(0, 1, 1, 0, 0), (bad, 1, 1, 0, 0)], SAMPLING))
    assert said(batch).startswith("sequence 1: sampling needs")


def test_a_sequence_may_fill_the_context_and_no_more():
    driver = Driver(NoEngine(), SMALL, blocks=BLOCKS)
    for total in (SMALL.context, SMALL.context + 1):
        driver.tokens[0] = [0] * (total - 3)
        batch, _ = driver.batch({0: [1, 2, 3]})
        assert said(batch) == one_by_one(SMALL, BLOCK, BLOCKS, batch)
        assert (said(batch) is None) == (total == SMALL.context)
