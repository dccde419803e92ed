"""What became of requests, gathered from a scheduler's events; `csrc/scheduler/served.h` for the twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One row a request: `ww::ServedRequest`. Times are -1 where there was none; `outcome` is an Outcome's number, or -1
# where it has not ended.
REQUEST = np.dtype(
    [
        ("submitted_ns", np.int64),
        ("first_token_ns", np.int64),
        ("last_token_ns", np.int64),
        ("ended_ns", np.int64),
        ("prompt_tokens", np.int32),
        ("output_tokens", np.int32),
        ("device", np.int32),
        ("outcome", np.int32),
    ]
)
REJECTED = 3  # Outcome.REJECTED

Row = dict[str, int]


def arrived(now_ns: int, n_prompt: int, device: int, id: int) -> Row:
    """The row of a request that was submitted; `id` is what `submit` answered."""
    outcome, ended_ns = (REJECTED, now_ns) if id < 0 else (-1, -1)
    row = dict.fromkeys(REQUEST.names or (), -1)
    row |= {"submitted_ns": now_ns, "ended_ns": ended_ns, "prompt_tokens": n_prompt, "output_tokens": 0}
    return row | {"device": device, "outcome": outcome}


def serve(
    requests: list[Row], gaps_ns: list[list[int]], request_of: list[int], tokens: list[Any], ends: list[Any]
) -> None:
    """Write the events of one scheduler into its requests' rows; `ww::Served`."""
    for id, _, time_ns in tokens:
        row = requests[request_of[id]]
        if row["output_tokens"] == 0:
            row["first_token_ns"] = time_ns
        elif not gaps_ns or gaps_ns[-1][0] != time_ns - row["last_token_ns"]:
            gaps_ns.append([time_ns - row["last_token_ns"], 1])
        else:
            gaps_ns[-1][1] += 1
        row["output_tokens"] += 1
        row["last_token_ns"] = time_ns
    for id, outcome, _, _, _, _, ended_ns, *_ in ends:
        requests[request_of[id]] |= {"ended_ns": ended_ns, "outcome": outcome}


def arrays(requests: list[Row], gaps_ns: list[list[int]]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Rows and gaps as `serving_metrics` takes them."""
    rows = np.array([tuple(row.values()) for row in requests], REQUEST)
    return rows, np.array(gaps_ns, np.int64).reshape(-1, 2)
