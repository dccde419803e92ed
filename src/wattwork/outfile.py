"""Files that a command writes: checked before the work, written whole after it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from wattwork.errors import InvalidInput


def check_writable(path: Path | None, option: str = "--json") -> None:
    """Before a minute's work, not after it. InvalidInput says what is wrong with the option's file, if one is given."""
    if path is None or str(path) == "-":
        return
    if path.is_dir():
        raise InvalidInput(f"{option} {path}: this is a folder; give a file.")
    if path.exists() and not path.is_file():
        return
    try:
        tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise InvalidInput(f"{option} {path}: {error.strerror}; give a file in a writable folder.") from None


def write_whole(path: str | Path, content: str | bytes, what: str) -> None:
    """A file is there whole or not at all. InvalidInput, calling it `what`, if it cannot be written."""
    data = content.encode() if isinstance(content, str) else content
    target = Path(path).resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/stdout: written to, never replaced
            target.write_bytes(data)
            return
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"{what} cannot be written to {path}: {error.strerror}.") from None


def write_json(path: Path, data: dict[str, object], what: str) -> None:
    """The data as JSON, on standard output where the path is "-"."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_whole(path, text, what)
