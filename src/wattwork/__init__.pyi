from wattwork.device import Device as Device
from wattwork.engines import ModelConfig as ModelConfig, PRESETS as PRESETS, StepEngine as StepEngine, make_engine as make_engine
from wattwork.errors import InvalidInput as InvalidInput, MeterError as MeterError, QueueFull as QueueFull, RequestFailed as RequestFailed, UnsupportedISA as UnsupportedISA, WattworkError as WattworkError
from wattwork.job import Job as Job
from wattwork.measure import compare as compare
from wattwork.meters import Energy as Energy, Meter as Meter
from wattwork.report import PhaseResult as PhaseResult, Report as Report, Switch as Switch
from wattwork.scheduler import Handle as Handle, Scheduler as Scheduler, SchedulerConfig as SchedulerConfig
from wattwork.search import Hit as Hit, SearchResult as SearchResult, Stop as Stop, isas as isas, search as search
from wattwork.trace import Trace as Trace
from wattwork.work import Work as Work

__version__: str
__all__: list[str]
