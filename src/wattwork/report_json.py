"""Reading a JSON object field by field: each error says where, what was wanted, and what was there."""

from __future__ import annotations

import math
from typing import Any

from wattwork.errors import InvalidInput

_NEEDED: Any = object()


class Reader:
    """A JSON object, and where it stands."""

    def __init__(self, data: Any, where: str) -> None:
        """InvalidInput unless `data` is an object."""
        self.where = where
        if not isinstance(data, dict):
            raise InvalidInput(f"{where} must be an object, not {_short(data)}.")
        self.data: dict[str, Any] = data

    def value(self, name: str, default: Any = _NEEDED) -> Any:
        """The field as it stands; an error if it is missing and has no default."""
        found = self.data.get(name, default)
        if found is _NEEDED:
            raise InvalidInput(f"{self.where} has no {name!r}.")
        return found

    def number(self, name: str) -> float:
        """A finite number."""
        found = self.value(name)
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise self._wrong(name, "a number", found)
        return found

    def optional_number(self, name: str) -> float | None:
        """The same, or None where it is null or missing."""
        return None if self.value(name, None) is None else self.number(name)

    def whole(self, name: str, default: Any = _NEEDED) -> int:
        """A whole number from 0 up."""
        found = self.value(name, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise self._wrong(name, "a whole number from 0 up", found)
        return found

    def optional_whole(self, name: str) -> int | None:
        """The same, or None where it is null or missing."""
        return None if self.value(name, None) is None else self.whole(name)

    def flag(self, name: str, *, optional: bool = False) -> bool | None:
        """True or false; None too if `optional`."""
        found = self.value(name, None if optional else _NEEDED)
        if not (isinstance(found, bool) or (optional and found is None)):
            raise self._wrong(name, "true or false", found)
        return found

    def text(self, name: str, default: Any = _NEEDED) -> str:
        """A string."""
        found = self.value(name, default)
        if not isinstance(found, str):
            raise self._wrong(name, "a string", found)
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Strings; missing or null is none."""
        found = self.value(name, None) or []
        if not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
            raise self._wrong(name, "a list of strings", found)
        return tuple(found)

    def choice(self, name: str, among: tuple[str, ...], *, optional: bool = False) -> Any:
        """One of some strings; None too if `optional`."""
        found = self.value(name, None if optional else _NEEDED)
        if not (found in among or (optional and found is None)):
            raise self._wrong(name, f"one of {', '.join(among)}", found)
        return found

    def interval(self, name: str) -> tuple[float, float] | None:
        """[low, high], or None."""
        found = self.value(name, None)
        if found is None:
            return None
        numbers = isinstance(found, list) and all(type(x) in (int, float) and math.isfinite(x) for x in found)
        if not numbers or len(found) != 2 or found[0] > found[1]:
            raise self._wrong(name, "[low, high]", found)
        return found[0], found[1]

    def mapping(self, name: str) -> dict[str, Any]:
        """An object of any content; missing or null is an empty one."""
        return Reader(self.value(name, None) or {}, f"{self.where}: {name}").data

    def child(self, name: str) -> Reader | None:
        """A Reader of the object in that field; None where it is null or missing."""
        found = self.value(name, None)
        return None if found is None else Reader(found, f"{self.where}: {name}")

    def children(self, name: str) -> list[Reader]:
        """Readers of the objects in a list; missing or null is an empty one."""
        found = self.value(name, None)
        if not isinstance(found, list | None):
            raise self._wrong(name, "a list", found)
        return [Reader(item, f"{self.where}: {name}[{i}]") for i, item in enumerate(found or [])]

    def _wrong(self, name: str, wanted: str, found: Any) -> InvalidInput:
        return InvalidInput(f"{self.where}: {name} must be {wanted}, not {_short(found)}.")


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 40 else text[:37] + "..."
