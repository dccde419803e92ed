"""Who holds each KV block, and which content lies where. `csrc/scheduler/prefixes.h` states the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

Content = tuple[int, tuple[int, ...]]  # the block before (-1: none), a full block's tokens


class Prefixes:
    """KV blocks that several sequences hold at once."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.holders = [0] * num_blocks
        self.block_of: dict[Content, int] = {}
        self.content_of: dict[int, Content] = {}

    def hold(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            self.holders[block] += 1

    def release(self, blocks: Iterable[int]) -> list[int]:
        """One holder of each leaves; those that had no other are free."""
        free = []
        for block in blocks:
            self.holders[block] -= 1
            if not self.holders[block]:
                free.append(block)
                if block in self.content_of:
                    del self.block_of[self.content_of.pop(block)]
        return free

    def freed_without(self, holders: Iterable[list[int]]) -> int:
        """How many blocks would be free if these holders left."""
        gone = Counter(block for blocks in holders for block in blocks)
        return sum(n == self.holders[block] for block, n in gone.items())

    def chain(self, tokens: Sequence[int]) -> list[int]:
        """The longest known prefix of the tokens that leaves at least one to compute."""
        blocks: list[int] = []
        while (len(blocks) + 1) * self.block_size < len(tokens):
            block = self.block_of.get(self._content(tokens, blocks, len(blocks)))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def enter(self, tokens: Sequence[int], blocks: Sequence[int], n: int) -> None:
        """The first n blocks are full and computed; of content that is there already, the newcomer's is not entered."""
        for i in range(n):
            content = self._content(tokens, blocks, i)
            if self.block_of.setdefault(content, blocks[i]) != blocks[i]:
                break
            self.content_of[blocks[i]] = content

    def _content(self, tokens: Sequence[int], blocks: Sequence[int], i: int) -> Content:
        begin = i * self.block_size
        return blocks[i - 1] if i else -1, tuple(tokens[begin : begin + self.block_size])
