"""What the options of `wattwork hash` say: a header, a target, numbers. InvalidInput names the option."""

from __future__ import annotations

import argparse
import os
import string
from typing import Literal

from wattwork.data import HEADER_BYTES, mainnet_header
from wattwork.errors import InvalidInput
from wattwork.rectangle import Rect, rectangle
from wattwork.work import Work, bits_to_target, difficulty_to_target

LONGEST_FILE = 4096  # enough for a header in hexadecimal with any white space
SEARCH_OPTIONS = (
    *("header", "first", "count", "target", "bits", "difficulty"),
    *("version_mask", "versions", "version_first", "max_hits", "device"),
)


def work_of(args: argparse.Namespace) -> Work:
    """The header, the target and the mask."""
    mask = 0 if args.version_mask is None else hexadecimal("--version-mask", args.version_mask)
    return Work.from_header(header_of(args.header), target=_target(args), version_mask=mask)


def rect_of(args: argparse.Namespace, work: Work) -> Rect:
    """The nonces and versions: all of them where nothing else is said."""
    versions: int | Literal["all"] = "all"
    if args.versions not in (None, "all"):
        versions = number("--versions", args.versions)
    first = 0 if args.first is None else number("--first", args.first)
    count = None if args.count is None else number("--count", args.count)
    version_first = 0 if args.version_first is None else number("--version-first", args.version_first)
    if not work.version_mask and (versions not in (0, 1, "all") or version_first):
        raise InvalidInput("versions are rolled in the bits of a mask: give one, for example --version-mask 1fffe000.")
    return rectangle(work, first, count, versions=versions, version_first=version_first)


def max_hits_of(args: argparse.Namespace) -> int | None:
    """As many hits as are wanted, or None."""
    wanted = None if args.max_hits is None else number("--max-hits", args.max_hits)
    if wanted is not None and wanted < 1:
        raise InvalidInput(f"--max-hits must be at least 1, not {wanted}.")
    return wanted


def header_of(source: str | None) -> bytes:
    """The 80 bytes: given as hexadecimal digits, in a file or on standard input ("-"), there also raw.

    None: the header of the genesis block.
    """
    if source is None:
        return mainnet_header(0)
    if source != "-" and not os.path.exists(source) and not set(source) - set(string.hexdigits):
        return _header_in(source.encode(), "--header")
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            data = file.read(LONGEST_FILE)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"--header {source}: {said}; give 160 hexadecimal digits, a file, or '-'.") from None
    return _header_in(data, "--header from standard input" if source == "-" else f"--header {source}")


def _header_in(data: bytes, where: str) -> bytes:
    digits = b"".join(data.split())
    if not set(digits) - set(string.hexdigits.encode()):
        if len(digits) != 2 * HEADER_BYTES:
            raise InvalidInput(f"{where}: a block header must have 160 hexadecimal digits; there are {len(digits)}.")
        return bytes.fromhex(digits.decode())
    if len(data) != HEADER_BYTES:
        most = f"{LONGEST_FILE} or more" if len(data) == LONGEST_FILE else str(len(data))
        raise InvalidInput(f"{where}: give 160 hexadecimal digits or the 80 raw bytes; there are {most} bytes.")
    return data


def _target(args: argparse.Namespace) -> int | None:
    """None: the header's own bits."""
    if args.target is not None:
        return hexadecimal("--target", args.target)
    if args.bits is not None:
        return bits_to_target(hexadecimal("--bits", args.bits))
    if args.difficulty is None:
        return None
    try:
        return difficulty_to_target(float(args.difficulty))
    except InvalidInput:
        raise
    except ValueError:
        raise InvalidInput(f"--difficulty must be a number above 0, not {args.difficulty!r}.") from None


def number(option: str, text: str) -> int:
    """A whole number, decimal or 0x and hexadecimal."""
    try:
        return int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        raise InvalidInput(f"{option} must be a whole number, decimal or 0x and hexadecimal, not {text!r}.") from None


def hexadecimal(option: str, text: str) -> int:
    """A number in hexadecimal digits, 0x before it or not."""
    try:
        return int(text, 16)
    except ValueError:
        raise InvalidInput(f"{option} must be hexadecimal digits, not {text!r}.") from None
