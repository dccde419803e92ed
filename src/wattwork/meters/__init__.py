"""Meters: what a window of work cost in joules. `base` says what a meter is; one file per source."""

from wattwork.meters.base import KINDS, Clock, Energy, Kind, Source
from wattwork.meters.meter import SOURCES, Meter, Window

__all__ = ["KINDS", "SOURCES", "Clock", "Energy", "Kind", "Meter", "Source", "Window"]
