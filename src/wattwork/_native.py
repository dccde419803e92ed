"""The one place that knows whether the native core is here.

`core` is the module `wattwork._core`; where the package was installed without a compiler, `HAVE_CORE` is False,
`core` must not be used, and the NumPy fallback serves. WATTWORK_REQUIRE_CORE=1 makes a missing core an error.
"""

import os

from wattwork.errors import WattworkError

try:
    import wattwork._core as core
except ModuleNotFoundError as error:
    # Any other ImportError is a core that is there but broken, and never a reason to fall back.
    if error.name != "wattwork._core":
        raise
    if os.environ.get("WATTWORK_REQUIRE_CORE"):
        raise WattworkError(
            "WATTWORK_REQUIRE_CORE is set but wattwork was installed without its native core; "
            "install a C++20 compiler and reinstall."
        ) from error
    core = None  # type: ignore[assignment]

HAVE_CORE = core is not None

__all__ = ["HAVE_CORE", "core"]
