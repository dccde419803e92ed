# ---- runtime
def default_threads() -> int: ...
def now_ns() -> int: ...

class Back:
    @property
    def units(self) -> int: ...

# ---- search

# ---- engines

# ---- scheduler
