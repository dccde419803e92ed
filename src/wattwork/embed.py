"""Where the C header and the library lie, for programs that embed the core."""

import sys
from pathlib import Path

from wattwork._native import HAVE_CORE
from wattwork.errors import WattworkError


def include_dir() -> str:
    """The folder to compile with (`-I`): it holds `wattwork/wattwork.h`. Raises WattworkError without the core."""
    return str(_package() / "include")


def library_path() -> str:
    """The shared library to link or load, `libwattwork.so` or macOS's .dylib. Raises WattworkError without the core."""
    return str(_package() / f"libwattwork.{'dylib' if sys.platform == 'darwin' else 'so'}")


def _package() -> Path:
    if not HAVE_CORE:
        raise WattworkError(
            "wattwork was installed without its native core; install a C++20 compiler and reinstall to embed it."
        )
    return Path(__file__).parent
