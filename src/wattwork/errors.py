"""The errors a user can meet. Each message is one sentence that names what to change."""

import operator


class WattworkError(Exception):
    """Base of all of them. The command line prints the sentence and ends with exit code 2."""


class InvalidInput(WattworkError, ValueError):
    """An argument, a file or an environment variable is not what it must be."""


class UnsupportedISA(WattworkError, ValueError):
    """The instruction set asked for is unknown, or not usable on this machine."""


class DeviceError(WattworkError, RuntimeError):
    """The GPU asked for is not here, cannot be used, or failed at its work."""


class MeterError(WattworkError, RuntimeError):
    """The meter asked for is not here, or cannot be read; or a window's energy was asked for too early."""


class QueueFull(WattworkError):
    """The scheduler's queue is at its bound; try again later or raise the bound."""


class DeadlineInfeasible(WattworkError):
    """Even alone on the engine the request would finish after its deadline; give it more time or less to do."""


class RequestFailed(WattworkError, RuntimeError):
    """A request ended otherwise than finished; `.reason` says how: cancelled, timed_out or failed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def whole(name: str, value: object) -> int:
    """The value as an int. InvalidInput, naming the argument, unless it is a whole number."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidInput(f"{name} must be a whole number, not {value!r}.") from None
