"""The batching scheduler, its state machine (C++ or `twin`) and its live face.

config ─► Scheduler ─► Handle        live.py, handle.py: what a caller sees
             │            ▲
           loop ─► events ┘          _core.Loop, or fallback.py: the thread that joins engine and back
             │
      state machine                  _core.SchedulerCore, or twin.py, waiting.py, cost.py: who runs in which step
"""

from wattwork.latency import Timing
from wattwork.scheduler.config import Sampling, SchedulerConfig, Stats
from wattwork.scheduler.handle import Handle
from wattwork.scheduler.live import Scheduler

__all__ = ["Handle", "Sampling", "Scheduler", "SchedulerConfig", "Stats", "Timing"]
