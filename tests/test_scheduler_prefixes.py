"""Requests that begin alike share KV blocks: cases by name, on both machines, each call checked by `Pair`."""

import numpy as np
import pytest
from scheduler_pair import Pair

from wattwork.errors import InvalidInput
from wattwork.scheduler import SchedulerConfig
from wattwork.scheduler.twin import Outcome


def pair(**changes):
    sizes = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "num_blocks": 32, "block_size": 4, "max_model_len": 64}
    return Pair(SchedulerConfig(**{**sizes, "enable_prefix_sharing": True, **changes}))


def step(p, token=9):
    """One step; what each row computed, {id: (from, to)}."""
    if not p.schedule():
        return {}
    computed = {r.id: (r.computed, r.computed + n) for r, n in p.rows}
    p.complete([token] * len(p.rows))
    return computed


def blocks(p, id):
    return list(next(r.blocks for r in p.twin.running if r.id == id))


def count(p, name):
    return p.twin.counters()[name]


def test_an_equal_prompt_is_computed_once():
    p = pair()
    p.submit(10, 8, family=1)
    assert step(p) == {1: (0, 10)}
    p.submit(10, 8, family=1, tenant=5)
    assert step(p) == {1: (10, 11), 2: (8, 10)}, "two full blocks are there; the rest is its own"
    assert blocks(p, 1)[:2] == blocks(p, 2)[:2]
    assert (count(p, "prompt_tokens"), count(p, "prefix_shared_tokens")) == (12, 8)
    assert count(p, "kv_blocks_used") == 4, "shared ones once"
    charges = p.twin.queue.counters
    before = 10 + 2  # a tenant that comes is lifted to the counter of the last one that waited
    assert charges[0, 0] == before + 2
    assert charges[0, 5] == before + 2 + 2, "for 2 tokens of its prompt, and an output"
    p.drain()
    assert (p.outputs[1], p.outputs[2]) == ([9, 9] + [3] * 6, [9] + [3] * 7)


def test_off_shares_nothing():
    p = pair(enable_prefix_sharing=False)
    for _ in range(2):
        p.submit(10, 8, family=1)
        step(p)
    assert (count(p, "prompt_tokens"), count(p, "prefix_shared_tokens"), count(p, "kv_blocks_used")) == (20, 0, 6)


@pytest.mark.parametrize(("n", "shared"), [(4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (13, 12), (40, 12)])
def test_at_least_one_token_is_computed(n, shared):
    """Beside a prompt of 13: of an equal one of exactly k blocks, the last is computed again."""
    p = pair()
    p.submit(13, 8, family=1)
    step(p)
    p.submit(n, 2, family=1)
    assert step(p)[2] == (shared, n)


def test_equal_prompts_in_one_step_are_both_computed():
    """Nothing is there yet. The block of the second is entered once the first, whose content it repeats, is gone."""
    p = pair()
    p.submit(6, 2, family=1)
    p.submit(6, 20, family=1)
    assert step(p) == {1: (0, 6), 2: (0, 6)}
    assert step(p) == {1: (6, 7), 2: (6, 7)}
    assert not p.twin.prefixes.content_of, "the first has finished"
    assert step(p) == {2: (7, 8)}, "its second block is full"
    p.submit(9, 2, family=1)
    assert step(p)[3] == (4, 9), "9 is not what the second put out"


def test_output_is_shared_too():
    """A second turn: its prompt is the first's prompt and output, while another of that conversation runs."""
    p = pair()
    p.submit(6, 20, family=1)
    for _ in range(6):
        step(p)
    text = list(p.twin.running[0].tokens)
    p.submit([*text, 5, 5], 2)
    assert step(p)[2] == (8, len(text) + 2)


@pytest.mark.parametrize("how", ["cancelled", "in flight", "finished", "failed"])
def test_the_donor_goes_and_the_sharer_stays(how):
    p = pair()
    p.submit(10, 3, family=1)
    step(p)
    p.submit(10, 9, family=1)
    step(p)
    shared = blocks(p, 1)[:2]
    if how == "cancelled":
        p.cancel(1)
    elif how == "in flight":
        p.schedule()
        p.cancel(1)
        p.complete([9] * len(p.rows))
    elif how == "finished":
        step(p)
    else:
        p.schedule()
        p.complete([-1 if r.id == 1 else 9 for r, _ in p.rows])
    assert 1 in p.ended
    assert blocks(p, 2)[:2] == shared
    assert not set(shared) & set(p.twin.free)
    p.submit(10, 9, family=1)
    assert step(p)[3] == (8, 10), "now the sharer is the donor"
    assert blocks(p, 3)[:2] == shared
    p.drain()
    assert p.ended[2] == p.ended[3] == Outcome.FINISHED


def test_a_failed_batch_leaves_nothing_behind():
    p = pair()
    p.submit(10, 3, family=1)
    p.schedule()
    p.fail()
    p.submit(10, 3, family=1)
    assert step(p) == {2: (0, 10)}


@pytest.mark.parametrize("lacking", [{"max_num_seqs": 1}, {"num_blocks": 4}], ids=["seat", "blocks"])
def test_a_sharer_displaces_its_donor(lacking):
    """The prefix stays where it is, though for a moment nobody runs that holds it."""
    p = pair(**lacking)
    p.submit(10, 3, family=1)
    step(p)
    before = blocks(p, 1)
    p.submit(14, 2, family=1, priority=1)
    assert step(p) == {2: (8, 14)}
    assert count(p, "num_preemptions") == 1
    assert blocks(p, 2)[:2] == before[:2]
    p.drain()
    assert p.ended == {1: Outcome.FINISHED, 2: Outcome.FINISHED}


def test_a_preempted_donor_comes_back_onto_its_own_prefix():
    p = pair(max_num_seqs=2)
    p.submit(10, 20, family=1)
    step(p)
    p.submit(10, 20, family=1, priority=1)
    step(p)
    p.submit(3, 1, priority=2)
    assert step(p) == {2: (10, 11), 3: (0, 3)}, "the first was displaced"
    assert step(p) == {2: (11, 12), 1: (8, 12)}, "and computes only what it alone had"
    assert count(p, "prefix_shared_tokens") == 16
    assert count(p, "prompt_tokens") == 10 + 2 + 3, "each once, however often recomputed"


def test_a_preempted_sharer_comes_back_onto_what_its_donor_holds():
    """Decodes outgrow the pool."""
    p = pair(num_blocks=6, max_num_seqs=2)
    p.submit(9, 14, family=1)
    step(p)
    p.submit(9, 14, family=1)
    while not count(p, "num_preemptions"):
        step(p)
    p.drain()
    assert [len(p.outputs[id]) for id in (1, 2)] == [14, 14]
    assert count(p, "prefix_shared_tokens") > 8


def test_two_victims_are_counted_with_what_they_share():
    """Neither alone frees the blocks they hold together."""
    p = pair(num_blocks=5)
    p.submit(10, 9, family=1)
    step(p)
    p.submit(10, 9, family=1)
    step(p)
    p.submit(17, 2, family=2, priority=1)
    assert step(p) == {3: (0, 17)}
    assert count(p, "num_preemptions") == 2


def test_what_is_pinned_is_not_counted_as_freed():
    """The head's prefix is held by its only victim: it needs the rest of its blocks from elsewhere, and must wait."""
    p = pair(num_blocks=6)
    p.submit(9, 4, family=2, priority=2)
    step(p)
    p.submit(9, 4, family=1)
    step(p)
    p.submit(21, 2, family=1, priority=1)
    assert 3 not in step(p), "2 pinned and 1 freed, of 6: 4 are needed"
    assert count(p, "num_preemptions") == 0
    p.drain()
    assert len(p.ended) == 3


def test_chunked_prefills_are_shared_as_far_as_they_are():
    p = pair(max_num_batched_tokens=6)
    p.submit(20, 2, family=1)
    step(p)
    p.submit(20, 2, family=1)
    assert step(p) == {1: (6, 12)}, "the budget is the first's"
    assert count(p, "prefix_shared_tokens") == 0
    for _ in range(3):
        step(p)
    assert count(p, "prefix_shared_tokens") == 16


def test_sharing_makes_room():
    """Of the prompts of a pool that holds two of them, eight run at once."""
    p = pair(max_num_seqs=8, num_blocks=18)
    p.submit(33, 3, family=1)
    step(p)
    for _ in range(7):
        p.submit(33, 3, family=1)
    assert len(step(p)) == 8
    assert count(p, "kv_blocks_used") == 8 + 8
    assert count(p, "prompt_tokens") + count(p, "prefix_shared_tokens") == 8 * 33


def test_equal_hashes_are_told_apart():
    """Two prompts of which the first block has one 64-bit hash in the core, found by its arithmetic."""
    tokens = np.random.default_rng(1).integers(0, 2**31, (2, 1 << 20), dtype=np.uint64)
    hashes = np.uint64(2**32 - 1)  # -1 as u32: it begins a sequence
    for of_all in tokens:
        hashes = (hashes ^ of_all) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(32)
    high = hashes >> np.uint64(31)  # what the third token cannot make up for
    order = np.argsort(high)
    at = np.flatnonzero(np.diff(high[order]) == 0)[0]
    i, j = order[at : at + 2]
    a = [*tokens[:, i].tolist(), 5, 9]
    b = [*tokens[:, j].tolist(), 5 ^ int(hashes[i] ^ hashes[j]), 9]
    p = pair(block_size=3)
    for prompt, shared in ((a, 0), (b, 0), (a, 3), (b, 3)):
        p.submit(prompt, 40)
        assert step(p)[p.twin.last_id] == (shared, 4)


def test_prompts_of_two_tokens_find_their_own():
    """Many prefixes that differ in one token anywhere; `Pair` knows whose KV each row should find."""
    p = pair(block_size=2, num_blocks=2000, max_num_seqs=64, max_num_batched_tokens=640)
    rng = np.random.default_rng(1)
    for _ in range(60):
        p.submit(rng.integers(0, 2, 9).tolist(), 40)
        step(p)
    assert count(p, "prefix_shared_tokens") > 200


def test_the_switch_is_a_bool():
    with pytest.raises(InvalidInput, match="enable_prefix_sharing is 1; give True or False"):
        SchedulerConfig(enable_prefix_sharing=1)
