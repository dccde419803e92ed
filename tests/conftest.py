"""Two environments run this suite: with the core (nothing may skip for want of it), and the pure-Python fallback."""

from seeds import FRESH_SEED

from wattwork._native import HAVE_CORE


def pytest_report_header():
    return f"fresh seed: {FRESH_SEED} (WATTWORK_TEST_SEED={FRESH_SEED} repeats it)"


def pytest_collection_modifyitems(config, items):
    if HAVE_CORE:
        return
    without = [item for item in items if item.get_closest_marker("core")]
    config.hook.pytest_deselected(items=without)
    items[:] = [item for item in items if item not in without]
