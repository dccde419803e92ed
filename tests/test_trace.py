"""Traces: the reader, and the trace rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattwork.errors import InvalidInput
from wattwork.trace import Trace, packaged_trace, parse_trace, prompt_token_ids, read_trace, size_trace

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_the_packaged_slice():
    trace = packaged_trace()
    assert len(trace) == 256
    assert (trace.prompt_tokens[0], trace.output_tokens[0]) == (1081, 21)
    assert trace.arrival_s[0] == 0
    assert trace.arrival_s[-1] == pytest.approx(85.6, abs=0.1)
    assert (trace.prompt_tokens + trace.output_tokens).max() == 7528


def test_reading_keeps_all_seven_digits(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "2023-11-16 23:59:59.9799600,4808,10\r\n\n2023-11-17 00:00:00.0319601,3180,8\n")
    trace = read_trace(path)
    assert list(trace.arrival_s) == [0.0, pytest.approx(0.0520001, abs=1e-12)]
    assert list(trace.prompt_tokens) == [4808, 3180]
    assert list(trace.output_tokens) == [10, 8]
    assert trace.source == str(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "line 1 must name the columns TIMESTAMP,ContextTokens,GeneratedTokens"),
        ("a,b\n", "line 1 must name"),
        (HEAD, "holds no requests"),
        (HEAD + "2023-11-16 18:17:03.9,1,1\n2023-11-16 18:17:04,5\n", "line 3: 3 columns are needed, not 2"),
        (HEAD + "yesterday,1,1\n", "line 2: TIMESTAMP must be like"),
        (HEAD + "2023-11-16 18:17:03.x,1,1\n", "line 2: TIMESTAMP must be like"),
        (HEAD + "2023-11-16 18:17:03+01:00,1,1\n", "line 2: TIMESTAMP must be like"),
        (HEAD + "2023-11-16 18:17:03,0,1\n", "line 2: ContextTokens must be a whole number from 1 up, not '0'"),
        (HEAD + "2023-11-16 18:17:03,5,many\n", "line 2: GeneratedTokens must be"),
        (HEAD + "2023-11-16 18:17:03,5,1\n2023-11-16 18:17:02,5,1\n", "line 3: the time is before"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        parse_trace(text, "trace.csv")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


@st.composite
def traces(draw):
    n = draw(st.integers(1, 30))
    gaps = draw(st.lists(st.floats(0, 100), min_size=n - 1, max_size=n - 1))
    lengths = st.lists(st.integers(1, 9000), min_size=n, max_size=n)
    arrival_s = np.cumsum([0.0, *gaps])
    return Trace(arrival_s, np.array(draw(lengths)), np.array(draw(lengths)), "drawn")


@given(traces(), st.floats(1, 1e3), st.floats(0.01, 1.5), st.floats(0.5, 60), st.integers(2, 10_000))
def test_the_trace_rule(trace, capacity, load, window_s, context):
    sized = size_trace(trace, capacity_tok_s=capacity, window_s=window_s, context=context, load=load)
    played, info, size = sized.trace, sized.info, len(trace)
    n = len(played)
    # The load holds for what is played, over the time it is played in.
    assert played.prompt_tokens.sum() / sized.duration_s == pytest.approx(load * capacity)
    assert sized.duration_s <= window_s * (1 + 1e-9) or n == 1
    # As many as fit: the next request would be past the window.
    longer_s = max(window_s, sized.duration_s) + 9001 / (load * capacity)
    following = size_trace(trace, capacity_tok_s=capacity, window_s=longer_s, context=context, load=load)
    offered = played.prompt_tokens.sum() + following.trace.prompt_tokens[n]
    assert offered > load * capacity * window_s * (1 - 1e-9) or n == 1
    # Lengths fit, at least 1, and are scaled by one factor, rounded up (but for one token that rounding cost).
    total = played.prompt_tokens + played.output_tokens
    assert total.max() <= context
    assert min(played.prompt_tokens.min(), played.output_tokens.min()) >= 1
    index = np.arange(n) % size
    longest = int((trace.prompt_tokens + trace.output_tokens).max())
    assert info.scale == (context / longest if longest > context else 1.0)
    for now, recorded in ((played.prompt_tokens, trace.prompt_tokens), (played.output_tokens, trace.output_tokens)):
        wanted = recorded[index] * info.scale
        assert (now < wanted + 1 + 1e-6).all()
        assert (now > wanted - 1 - 1e-6).all()
    # Order and relative gaps are kept.
    assert played.arrival_s[0] == 0
    assert (np.diff(played.arrival_s) >= 0).all()
    assert played.arrival_s[-1] <= sized.duration_s * (1 + 1e-9)
    head = min(n, size)
    assert played.arrival_s[:head] == pytest.approx(trace.arrival_s[:head] * info.stretch)
    assert (info.requests, info.slice_requests, info.repeats) == (n, size, -(-n // size))
    assert info.to_dict()["source"] == "drawn"


def test_a_slice_that_is_too_short_is_played_again():
    trace = Trace(np.array([0.0, 1.0, 3.0]), np.array([10, 20, 30]), np.array([1, 1, 1]), "three")
    sized = size_trace(trace, capacity_tok_s=100.0, window_s=1.3, context=100, load=1.0)
    # 130 tokens: 10 20 30, 10 20 30, 10; the round closes with the mean gap of 1.5.
    assert list(sized.trace.prompt_tokens) == [10, 20, 30, 10, 20, 30, 10]
    assert sized.duration_s == pytest.approx(1.3)
    assert sized.trace.arrival_s / sized.info.stretch == pytest.approx([0, 1, 3, 4.5, 5.5, 7.5, 9.0])
    assert sized.info.repeats == 3
    assert sized.info.stretch == pytest.approx(1.3 / 10.0)


def test_one_request_longer_than_the_window_is_still_played():
    sized = size_trace(packaged_trace(), capacity_tok_s=100.0, window_s=1.0, context=8192)
    assert len(sized.trace) == 1
    assert sized.duration_s == pytest.approx(1081 / 37.0)


def test_the_rule_is_pure():
    trace = packaged_trace()
    before = trace.prompt_tokens.copy()
    sized = [size_trace(trace, capacity_tok_s=2000.0, window_s=10.0, context=2048) for _ in range(2)]
    assert (trace.prompt_tokens == before).all()
    assert (sized[0].trace.arrival_s == sized[1].trace.arrival_s).all()
    assert sized[0].info == sized[1].info
    assert sized[0].info.load == 0.37


@pytest.mark.parametrize("name", ["capacity_tok_s", "window_s", "load"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_figures_that_mean_nothing(name, value):
    figures = {"capacity_tok_s": 1.0, "window_s": 1.0, "load": 1.0} | {name: value}
    with pytest.raises(InvalidInput, match=f"{name} must be"):
        size_trace(packaged_trace(), context=10, **figures)


def test_figures_beyond_all_measure():
    with pytest.raises(InvalidInput, match="more than 1,000,000 requests"):
        size_trace(packaged_trace(), capacity_tok_s=1e15, window_s=60.0, context=8192)


def test_a_context_for_nothing():
    with pytest.raises(InvalidInput, match="context must hold"):
        size_trace(packaged_trace(), capacity_tok_s=1.0, window_s=1.0, context=1)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 2**31 - 1))
def test_prompts_are_within_the_vocabulary_and_repeatable(seed, request, length, vocab):
    ids = prompt_token_ids(seed, request, length, vocab)
    assert ids.dtype == np.int32
    assert len(ids) == length
    assert ((ids >= 0) & (ids < vocab)).all()
    assert (ids == prompt_token_ids(seed, request, length, vocab)).all()
    assert (ids[: length // 2] == prompt_token_ids(seed, request, length // 2, vocab)).all()


def test_prompts_are_fixed_for_all_time_and_differ():
    assert list(prompt_token_ids(0, 0, 5, 32000)) == [19055, 2654, 30231, 18438, 24763]
    many = np.concatenate([prompt_token_ids(1, request, 1000, 100) for request in range(50)])
    counts = np.bincount(many, minlength=100)
    assert counts.min() > 350
    assert counts.max() < 650
    with pytest.raises(InvalidInput, match="vocabulary"):
        prompt_token_ids(0, 0, 5, 0)
