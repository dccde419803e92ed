"""The build backend: scikit-build-core, and one decision before it.

Where there is a C++ compiler and Python's headers, the native core is built, and a build that fails is an error.
Where either is missing, the wheel is pure Python (`py3-none-any`). Nothing falls back silently: what is decided here
is decided before anything is compiled.

WATTWORK_PURE=1            ask for the pure wheel all the same
WATTWORK_REQUIRE_NATIVE=1  make a missing compiler an error
"""

import os
import shutil
import sysconfig
from pathlib import Path


def _missing() -> str | None:
    """What the native build lacks on this machine, or None. Sets CXX to the compiler that was found."""
    asked = os.environ.get("CXX")
    if asked:
        if not shutil.which(asked.split()[0]):
            raise SystemExit(f"wattwork: CXX={asked} is no command on this PATH; unset CXX or correct it.")
    else:
        names = ["c++", "g++", "clang++", (sysconfig.get_config_var("CXX") or "").split(" ")[0]]
        found = next((path for name in names if name and (path := shutil.which(name))), None)
        if found is None:
            return "no C++ compiler (c++, g++ or clang++)"
        os.environ["CXX"] = found
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "no Python.h (on Debian: apt install python3-dev)"
    return None


if not os.environ.get("WATTWORK_PURE"):
    _lack = _missing()
    if _lack and os.environ.get("WATTWORK_REQUIRE_NATIVE"):
        raise SystemExit(f"wattwork: the native core was asked for, but this machine has {_lack}.")
    if _lack:
        print(f"wattwork: {_lack}: building the pure-Python wheel.", flush=True)
        os.environ["WATTWORK_PURE"] = "1"

from scikit_build_core.build import *  # noqa: F403  (the hooks pip calls, under the decision above)
