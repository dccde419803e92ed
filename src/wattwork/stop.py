"""What ends a search early."""

import ctypes
import threading


class Stop:
    """One word of C memory that ends the searches that watch it; set it from any thread, or from C at `address`."""

    __slots__ = ("_word",)

    def __init__(self) -> None:
        self._word = ctypes.c_uint32(0)

    @classmethod
    def at(cls, address: int) -> "Stop":
        """The word that lies there already; its owner keeps it alive."""
        stop = cls.__new__(cls)
        stop._word = ctypes.c_uint32.from_address(address)
        return stop

    def set(self) -> None:
        """End the searches that watch it, and those that will until `clear()`."""
        self._word.value = 1

    def clear(self) -> None:
        """Let searches run again."""
        self._word.value = 0

    @property
    def is_set(self) -> bool:
        """Whether the word is not 0."""
        return self._word.value != 0

    @property
    def address(self) -> int:
        """Where the word is: a `uint32_t`, valid as long as this object lives."""
        return ctypes.addressof(self._word)


def on_main_thread() -> bool:
    """Whether signal handlers run on this thread."""
    return threading.current_thread() is threading.main_thread()
