"""The C ABI as a C program meets it: the installed header and library, the exports, what is in the object files."""

import re
import subprocess
from pathlib import Path

import pytest

import wattwork

pytestmark = pytest.mark.core
PACKAGE = Path(wattwork.__file__).parent
LIBRARY = PACKAGE / "libwattwork.so"
HEADER = PACKAGE / "include" / "wattwork" / "wattwork.h"


def symbols(file, *options, nm="nm", **how):
    """(kind, name) of each line of nm."""
    listing = subprocess.run([nm, *options, file], check=True, capture_output=True, text=True, **how).stdout
    return [match.groups() for line in listing.splitlines() if (match := re.match(r"[0-9a-f ]* ([A-Za-z]) (.*)", line))]


def test_exports_are_the_header():
    exported = {name for kind, name in symbols(LIBRARY, "-D", "--defined-only") if name.startswith("ww_")}
    declared = set(re.findall(r"^WW_API [^;]*?\b(ww_\w+)\(", HEADER.read_text(), flags=re.M))
    assert exported == declared
    assert "ww_search" in declared


def test_nothing_else_is_exported():
    """But the private C++ namespace `ww`, and what the C++ runtime has every library share."""
    for kind, name in symbols(LIBRARY, "-D", "-C", "--defined-only"):
        private = re.match(r"((typeinfo|typeinfo name|vtable|guard variable) for |.*\b)?ww::", name)
        assert name.startswith("ww_") or private or kind in "VWu", (kind, name)


def assert_shares_nothing(objects, nm="nm", **how):
    """A weak function compiled for AVX-512 could be the one the linker keeps for every machine."""
    isas = "avx512|avx2|shani|armv8|neon|portable"
    per_isa = [file for file in objects if re.search(rf"(^|_)({isas})\.cpp\.o$", file.name)]
    assert any(file.match("sha256d/*.cpp.o") for file in per_isa)
    for file in per_isa:
        for kind, name in symbols(file, "-C", nm=nm, **how):
            assert kind not in "wWvVu", (file, kind, name)
            assert not (kind == "U" and "std::" in name), (file, name)
