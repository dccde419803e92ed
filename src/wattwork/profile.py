"""A profile: what a device does and draws at each level of each mode, and what a switch costs, as plain arrays.

The arrays are those of `ww_profile` in wattwork.h: C code, cffi and Numba read them where they lie.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wattwork.asics import asic
from wattwork.errors import InvalidInput
from wattwork.levels import Unit
from wattwork.meters.base import KINDS

Floats = npt.NDArray[np.float64]
SOURCES = (*KINDS, "published")  # the last: from a datasheet
TABLES = ("loads", "watts", "units_per_s", "sigma_w", "sigma_units_per_s")  # [n_modes][n_levels]
MATRICES = ("switch_s", "switch_j")  # [n_modes][n_modes]
UNITS = ("hashes", "output_tokens", None)
DATE = r"\d{4}(-\d{2}(-\d{2})?)?"
NAN = float("nan")


class CProfile(ctypes.Structure):
    """`struct ww_profile`. It keeps the arrays it points to alive."""

    _fields_ = (
        ("n_modes", ctypes.c_uint32),
        ("n_levels", ctypes.c_uint32),
        ("load", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in (*TABLES[1:], *MATRICES)),
    )
    arrays: tuple[Floats, ...]


class Point(NamedTuple):
    """A mode at one load, as `ww_point`. Unknown is NaN."""

    watts: float
    units_per_s: float
    sigma_w: float
    sigma_units_per_s: float


class SwitchTo(NamedTuple):
    """What going from one mode to another costs. Unknown is NaN."""

    seconds: float  # until the first new unit is done; into idle, until the old work has stopped
    joules: float


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Arrays are float64, contiguous, read-only, and unknown is NaN. InvalidInput where `ww_profile_check` refuses.

    `loads`: [n_modes][n_levels] in [0, 1], strictly ascending within a mode; 1 is the mode's full rate. `watts`,
    `units_per_s` and their standard deviations `sigma_w`, `sigma_units_per_s`: [n_modes][n_levels]. `switch_s`
    and `switch_j`: [n_modes][n_modes], from the row's mode to the column's.
    """

    device: str
    modes: tuple[str, ...]
    units: tuple[Unit | None, ...]  # what units_per_s counts in each mode; None: nothing, or not one thing alone
    source: str  # one of SOURCES: the least certain of the figures' sources
    loads: Floats
    watts: Floats
    units_per_s: Floats
    sigma_w: Floats
    sigma_units_per_s: Floats
    switch_s: Floats
    switch_j: Floats
    date: str | None = None  # YYYY, YYYY-MM or YYYY-MM-DD
    detail: str = ""
    _c: CProfile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Copies and checks what was given."""
        for name in ("modes", "units"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_words(self)
        n_modes = len(self.modes)
        levels = np.shape(self.loads)[-1] if np.ndim(self.loads) == 2 else 0
        for names, shape in ((TABLES, (n_modes, levels)), (MATRICES, (n_modes, n_modes))):
            for name in names:
                object.__setattr__(self, name, _array(name, getattr(self, name), shape))
        _check_loads(self.loads)
        arrays = tuple(getattr(self, name) for name in (*TABLES, *MATRICES))
        struct = CProfile(n_modes, levels, *(array.ctypes.data for array in arrays))
        struct.arrays = arrays
        object.__setattr__(self, "_c", struct)

    def c_struct(self) -> CProfile:
        """The `ww_profile` over these arrays: `ctypes.byref(profile.c_struct())` is a `const ww_profile*`."""
        return self._c

    @property
    def address(self) -> int:
        """Where `c_struct()` lies, for cffi (`ffi.cast("ww_profile *", profile.address)`) and Numba (as a `uintp`).

        Good for as long as the profile lives.
        """
        return ctypes.addressof(self._c)

    def at(self, mode: str, load: float) -> Point:
        """The mode at that load, linear between two levels, as `ww_profile_at` does it.

        InvalidInput for an unknown mode, and for a load outside the mode's levels: nothing is extrapolated.
        """
        row = self._row(mode)
        loads = self.loads[row]
        if not loads[0] <= load <= loads[-1]:
            raise InvalidInput(
                f"{mode} is known for loads from {loads[0]:g} to {loads[-1]:g}, not at {load:g}: nothing is "
                "extrapolated."
            )
        i = int(np.searchsorted(loads, load))
        share = 0.0 if loads[i] == load else float((loads[i] - load) / (loads[i] - loads[i - 1]))
        return Point(*(_between(getattr(self, name)[row], i, share) for name in TABLES[1:]))

    def switch(self, from_mode: str, to_mode: str) -> SwitchTo:
        """What that switch costs. InvalidInput for an unknown mode."""
        at = self._row(from_mode), self._row(to_mode)
        return SwitchTo(float(self.switch_s[at]), float(self.switch_j[at]))

    def _row(self, mode: str) -> int:
        if mode not in self.modes:
            raise InvalidInput(f"the profile has no mode {mode!r}; choose one of {', '.join(self.modes)}.")
        return self.modes.index(mode)

    @classmethod
    def from_table(
        cls,
        device: str,
        table: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
        *,
        units: Mapping[str, Unit] | None = None,
        switches: Mapping[tuple[str, str], tuple[float, float]] | None = None,
        date: str | None = None,
        detail: str = "",
    ) -> Profile:
        """A device known only by its datasheet; its source is "published", and what no datasheet says is NaN.

        `table`: for each mode its (load, watts, units_per_s), as many of them in each mode; `units`: what a mode
        counts, where it is not hashes for "hash" and output_tokens for "infer"; `switches`: (seconds, joules) from one
        mode to another. Without a table, `device` is the name
        of a packaged ASIC (`wattwork.asics`), known at full load alone. InvalidInput says what to change.
        """
        if table is None:
            return _from_asic(device)
        if not table or len({len(levels) for levels in table.values()}) != 1:
            raise InvalidInput("a table needs at least one mode, and as many levels in each; repeat a lone one.")
        try:
            rows = np.array([list(levels) for levels in table.values()], np.float64)
        except (TypeError, ValueError):
            rows = np.empty(0)
        if rows.ndim != 3 or rows.shape[2] != 3:
            raise InvalidInput("each level of a table must be three numbers: load, watts, units per second.")
        counts: dict[str, Unit | None] = {"hash": "hashes", "infer": "output_tokens", **(units or {})}
        modes = tuple(table)
        seconds, joules = unknown_switches(len(modes)), unknown_switches(len(modes))
        for pair, cost in (switches or {}).items():
            if not set(pair) <= set(modes):
                raise InvalidInput(f"the switch {pair[0]} to {pair[1]} is of a mode that the table has not.")
            at = modes.index(pair[0]), modes.index(pair[1])
            seconds[at], joules[at] = cost
        return cls(
            device=device,
            modes=modes,
            units=tuple(counts.get(mode) for mode in modes),
            source="published",
            date=date,
            detail=detail,
            **dict(zip(TABLES[:3], np.moveaxis(rows, 2, 0), strict=True)),
            **{name: np.full(rows.shape[:2], NAN) for name in TABLES[3:]},
            switch_s=seconds,
            switch_j=joules,
        )

    def save(self, path: str | Path) -> None:
        """Write `wattwork.profile/1`: NumPy's .npz where the name ends so, else JSON; both keep every bit.

        A file is there whole or not at all. InvalidInput if it cannot be written.
        """
        from wattwork import profile_file

        profile_file.save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read what `save` wrote. InvalidInput names the file and what is wrong with it."""
        from wattwork import profile_file

        return profile_file.load(path)


def unknown_switches(n_modes: int) -> Floats:
    """A matrix in which only staying is known: it costs nothing."""
    matrix = np.full((n_modes, n_modes), NAN)
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _from_asic(name: str) -> Profile:
    row = asic(name)
    if row.th_per_s is None or row.watts is None:
        raise InvalidInput(
            f"of the {name} only its {row.joules_per_th:g} J/TH are in the table; give its load, watts and hashes per "
            "second in a table of your own."
        )
    levels = {"hash": [(1.0, row.watts, row.th_per_s * 1e12)]}
    return Profile.from_table(name, levels, date=row.published, detail=row.source)


def _between(figures: Floats, i: int, share: float) -> float:
    """From level i a share of the way down to the one below; a level itself stays as it is. As csrc/profile.cpp."""
    above = float(figures[i])
    if share == 0:
        return above
    below = float(figures[i - 1])
    figure = above + share * (below - above)
    return min(figure, below) if above < below else max(figure, below)


def _check_words(profile: Profile) -> None:
    modes, units = profile.modes, profile.units
    if not modes or len(set(modes)) != len(modes) or not all(isinstance(mode, str) and mode for mode in modes):
        raise InvalidInput("a profile needs at least one mode, and each mode a name of its own.")
    if len(units) != len(modes) or not set(units) <= set(UNITS):
        raise InvalidInput("units must be hashes, output_tokens or None, one for each mode.")
    if profile.source not in SOURCES:
        raise InvalidInput(f"source must be one of {', '.join(SOURCES)}, not {profile.source!r}.")
    if profile.date is not None and not (isinstance(profile.date, str) and re.fullmatch(DATE, profile.date)):
        raise InvalidInput(f"date must be YYYY-MM-DD, YYYY-MM or YYYY, not {profile.date!r}.")


def _array(name: str, given: Any, shape: tuple[int, int]) -> Floats:
    """A read-only copy. InvalidInput unless it has that shape, and each figure is unknown, or finite from 0 up."""
    try:
        array = np.array(given, np.float64, order="C")
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != shape or not shape[1]:
        raise InvalidInput(f"{name} must be {shape[0]} row(s) of {max(shape[1], 1)} number(s): one for each mode.")
    if not bool(np.all(np.isnan(array) | ((array >= 0) & np.isfinite(array)))):
        raise InvalidInput(f"{name} must hold finite numbers from 0 up, and NaN for what is unknown.")
    array.setflags(write=False)
    return array


def _check_loads(loads: Floats) -> None:
    if not (bool(np.all((loads >= 0) & (loads <= 1))) and bool(np.all(np.diff(loads) > 0))):
        raise InvalidInput("loads must lie in [0, 1] and ascend strictly within each mode.")
