"""Profiles as files: JSON (schema `wattwork.profile/1`, `data/profile.schema.json`; unknown is null) and NumPy's .npz.

Both keep every bit of every figure. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wattwork.errors import InvalidInput
from wattwork.outfile import write_whole
from wattwork.profile import MATRICES, SOURCES, TABLES, Floats, Profile
from wattwork.report_json import Reader

SCHEMA = "wattwork.profile/1"
_WORDS = "words"  # the member of an .npz that holds all but the arrays, as JSON


def save(profile: Profile, path: str | Path) -> None:
    """.npz where the name ends so, else JSON. InvalidInput if it cannot be written."""
    write_whole(path, _npz(profile) if _is_npz(path) else to_json(profile), "the profile")


def load(path: str | Path) -> Profile:
    """Read what `save` wrote. InvalidInput names the file and what is wrong with it."""
    try:
        data = Path(path).read_bytes()
        text = "" if _is_npz(path) else data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"the profile {path} cannot be read: {why}.") from None
    return _from_npz(data, str(path)) if _is_npz(path) else from_json(text, str(path))


def to_json(profile: Profile) -> str:
    """The JSON text: a number is written with as many digits as tell it from its neighbours."""
    arrays = {name: _nulls(getattr(profile, name)) for name in (*TABLES, *MATRICES)}
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in {**_words(profile), **arrays}.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def from_json(text: str, where: str = "the profile") -> Profile:
    """From JSON text. InvalidInput names what is wrong, and in `where`. Keys not known here are left out."""
    return _profile(Reader(parsed(text, where), where))


def _is_npz(path: str | Path) -> bool:
    return Path(path).suffix == ".npz"


def _words(profile: Profile) -> dict[str, Any]:
    names = ("device", "source", "date", "detail", "modes", "units")
    return {"schema": SCHEMA, **{name: getattr(profile, name) for name in names}}


def _nulls(array: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(x) else x for x in row] for row in array.tolist()]


def _npz(profile: Profile) -> bytes:
    file = io.BytesIO()
    members: dict[str, Any] = {name: getattr(profile, name) for name in (*TABLES, *MATRICES)}
    members[_WORDS] = np.array(json.dumps(_words(profile)))
    np.savez(file, **members)
    return file.getvalue()


def _from_npz(data: bytes, where: str) -> Profile:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found: dict[str, Any] = {name: file[name] for name in (_WORDS, *TABLES, *MATRICES)}
    except Exception:  # a damaged archive fails in any of zipfile's and NumPy's ways
        raise InvalidInput(f"{where} is no profile that wattwork wrote as .npz; save it again.") from None
    words = parsed(str(found.pop(_WORDS)), where)
    return _profile(Reader(words, where), found)


def parsed(text: str, where: str) -> Any:
    """What a JSON text says. InvalidInput, naming `where`, if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{where} is not valid JSON ({error}).") from None


def _profile(data: Reader, arrays: dict[str, Any] | None = None) -> Profile:
    """From the words and the arrays; these are beside the words in JSON."""
    schema = data.value("schema")
    if schema != SCHEMA:
        raise InvalidInput(f"{data.where} has the schema {schema!r}; this version of wattwork reads {SCHEMA!r}.")
    if arrays is None:
        arrays = {name: _numbers(data, name) for name in (*TABLES, *MATRICES)}
    try:
        return Profile(
            device=data.text("device"),
            modes=_names(data, "modes"),
            units=_names(data, "units"),
            source=data.choice("source", SOURCES),
            date=data.value("date", None),
            detail=data.text("detail", ""),
            **arrays,
        )
    except InvalidInput as error:
        said = str(error)
        raise InvalidInput(said if said.startswith(data.where) else f"{data.where}: {said}") from None


def _names(data: Reader, name: str) -> tuple[Any, ...]:
    found = data.value(name)
    if not isinstance(found, list) or not all(isinstance(item, str | None) for item in found):
        raise InvalidInput(f"{data.where}: {name} must be a list of names, not {str(found)[:40]!r}.")
    return tuple(found)


def _numbers(data: Reader, name: str) -> list[list[float]]:
    """Rows of numbers, null being NaN. Strings, booleans, and JSON's NaN and Infinity (which are not JSON) are not."""
    rows: Any = data.value(name)
    if not isinstance(rows, list) or not all(isinstance(row, list) and all(map(_is_number, row)) for row in rows):
        raise InvalidInput(f"{data.where}: {name} must be rows of numbers, null for what is unknown.")
    return [[float("nan") if x is None else float(x) for x in row] for row in rows]


def _is_number(x: object) -> bool:
    return x is None or (isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= sys.float_info.max)
