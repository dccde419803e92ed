"""The package as installed: version, names, what an import costs."""

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wattwork


def fresh(code: str) -> str:
    """The output of a new interpreter that runs the code."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_version_is_the_distribution_s():
    assert wattwork.__version__ == importlib.metadata.version("wattwork")


def test_every_public_name_is_there_and_listed():
    stub = Path(wattwork.__file__).with_suffix(".pyi").read_text()
    assert sorted(wattwork.__all__) == sorted(wattwork._HOME) == sorted(re.findall(r"(\w+) as \1", stub))
    assert set(wattwork.__all__) <= set(dir(wattwork))
    for name in wattwork.__all__:
        assert getattr(wattwork, name) is not None


def test_no_public_name_is_hidden_by_a_module_of_that_name():
    assert not [name for name in wattwork.__all__ if importlib.util.find_spec(f"wattwork.{name}")]


def test_import_loads_nothing_heavy():
    loaded = fresh(
        "import sys, wattwork, wattwork.cli; print([m for m in ('numpy', 'rich', 'asyncio') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert fresh("import wattwork\ntry: wattwork.no_such\nexcept AttributeError as e: print(e)").endswith("'no_such'")


@pytest.mark.parametrize("module", ["meters", "report", "trace", "latency", "economics", "data", "machine"])
def test_importing_does_not_bring_numpy(module):
    assert fresh(f"import sys, wattwork.{module}; print('numpy' in sys.modules)") == "False"
