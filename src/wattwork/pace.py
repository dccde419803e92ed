"""How often a search in Python looks whether it is to stop."""

from typing import Any

BLOCKS_KEPT = 4  # more than threads of a scheduler hash in NumPy


class Pace:
    """How large a quantum may be for a stop to be seen within `target_s` on average, hence half of the quantum's time.

    A kernel whose quanta take longer than a few microseconds tells it what each took, and takes the next one of `size`.
    What such a kernel had begun when it was stopped is kept here, so that also the shortest gaps add up.
    """

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self.size = 0  # 0: the kernel's least, for nothing is known yet
        self._begun: dict[tuple[bytes, int, int], Any] = {}

    def keep(self, header: bytes, first: int, count: int, block: Any) -> None:
        """Of these nonces a part of the work is done."""
        if len(self._begun) >= BLOCKS_KEPT:  # nobody came for them
            self._begun.clear()
        self._begun[header, first, count] = block

    def take(self, header: bytes, first: int, count: int) -> Any:
        """What was kept of them, for one taker; or None."""
        return self._begun.pop((header, first, count), None)

    def took(self, size: int, seconds: float) -> None:
        """A quantum of that size took so long. It changes by a factor of two at most: one may have been held up."""
        ratio = 2 * self.target_s / max(seconds, 1e-9)
        self.size = max(int(size * min(max(ratio, 0.5), 2.0)), 1)
