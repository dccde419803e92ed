from wattwork._search import Hit as Hit
from wattwork._search import SearchResult as SearchResult
from wattwork._search import Stop as Stop
from wattwork._search import isas as isas
from wattwork._search import search as search
from wattwork.device import Device as Device
from wattwork.embed import include_dir as include_dir
from wattwork.embed import library_path as library_path
from wattwork.engines import PRESETS as PRESETS
from wattwork.engines import ModelConfig as ModelConfig
from wattwork.engines import StepEngine as StepEngine
from wattwork.engines import make_engine as make_engine
from wattwork.errors import DeadlineInfeasible as DeadlineInfeasible
from wattwork.errors import InvalidInput as InvalidInput
from wattwork.errors import MeterError as MeterError
from wattwork.errors import QueueFull as QueueFull
from wattwork.errors import RequestFailed as RequestFailed
from wattwork.errors import UnsupportedISA as UnsupportedISA
from wattwork.errors import WattworkError as WattworkError
from wattwork.job import Job as Job
from wattwork.measure import compare as compare
from wattwork.meters import Energy as Energy
from wattwork.meters import Meter as Meter
from wattwork.report import PhaseResult as PhaseResult
from wattwork.report import Report as Report
from wattwork.report import Switch as Switch
from wattwork.scheduler import Handle as Handle
from wattwork.scheduler import Sampling as Sampling
from wattwork.scheduler import Scheduler as Scheduler
from wattwork.scheduler import SchedulerConfig as SchedulerConfig
from wattwork.trace import Trace as Trace
from wattwork.trace import packaged_trace as packaged_trace
from wattwork.trace import read_trace as read_trace
from wattwork.trace import size_trace as size_trace
from wattwork.work import Work as Work

__version__: str
__all__: list[str]
