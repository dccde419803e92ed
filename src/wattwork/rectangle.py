"""What is searched, nonces x version numbers, and what is found in it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from wattwork.errors import InvalidInput, whole
from wattwork.work import Work

NONCES = 2**32


class Hit(NamedTuple):
    """A pair that meets the target. `hash` is the 32 bytes as `hashlib` gives them; `version` the field hashed."""

    nonce: int
    version: int
    hash: bytes


class Rect(NamedTuple):
    """Nonces [first, first + count) x version numbers [version_first, version_first + versions).

    `search(work, **rect._asdict())` searches it.
    """

    first: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which a rectangle has no use for
    version_first: int
    versions: int


def rectangle(
    work: Work,
    first: int = 0,
    count: int | None = None,
    *,
    versions: int | Literal["all"] = 1,
    version_first: int = 0,
) -> Rect:
    """What `search` covers with these arguments; it raises InvalidInput as that does."""
    first, version_first = whole("first", first), whole("version_first", version_first)
    if not 0 <= first <= NONCES:
        raise InvalidInput(f"first must be from 0 to 2**32, not {first}.")
    count = NONCES - first if count is None else whole("count", count)
    if not 0 <= count <= NONCES - first:
        raise InvalidInput(
            f"nonces end at 2**32: from {first} on, count must be from 0 to {NONCES - first}, not {count}."
        )
    if not 0 <= version_first <= work.versions:
        raise InvalidInput(
            f"the version mask makes {work.versions} versions: version_first must be up to that, not {version_first}."
        )
    left = work.versions - version_first
    number = left if versions == "all" else whole("versions", versions)
    if not 0 <= number <= left:
        raise InvalidInput(
            f"from version number {version_first} on, the version mask makes {left}: "
            f'versions must be "all" or a number up to that, not {versions!r}.'
        )
    return Rect(first, count, version_first, number)


def joined(rects: Iterable[Rect]) -> list[Rect]:
    """Joins what lies end to end in the same versions."""
    out: list[Rect] = []
    for rect in sorted(rects, key=lambda r: (r.version_first, r.first)):
        last = out[-1] if out else None
        if last and last[2:] == rect[2:] and last.first + last.count == rect.first:
            out[-1] = last._replace(count=last.count + rect.count)
        else:
            out.append(rect)
    return out
