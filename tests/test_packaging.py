"""How the package builds: native where there is a compiler, pure where there is none, and never silently wrong."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from test_abi import assert_shares_nothing

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "NOTICE", "src", "csrc")


def build(tree: Path, out: Path, *, path: str, **env: str) -> subprocess.CompletedProcess:
    """`pip wheel` of the tree with this PATH and these variables and no others that could choose a compiler."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX") and not k.startswith("WATTWORK_")}
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", str(out), str(tree)]
    return subprocess.run(command, env=kept | {"PATH": path} | env, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources to build from."""
    copy = tmp_path / "tree"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


def test_without_any_compiler_the_wheel_is_pure_and_complete(tree, tmp_path):
    result = build(tree, tmp_path / "out", path="/nonexistent")
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [n for n in names if n.endswith((".so", ".pyc"))]
    for needed in ("wattwork/cli.py", "wattwork/py.typed", "wattwork/data/report.schema.json"):
        assert needed in names
    assert any(n.endswith("licenses/NOTICE") for n in names)


def test_no_compiler_is_an_error_where_the_core_is_required(tree, tmp_path):
    result = build(tree, tmp_path / "out", path="/nonexistent", WATTWORK_REQUIRE_NATIVE="1")
    assert result.returncode != 0
    assert "no C++ compiler" in result.stdout + result.stderr


def test_a_compiler_that_is_named_and_missing_is_an_error(tree, tmp_path):
    result = build(tree, tmp_path / "out", path=os.environ["PATH"], CXX="/no/such/c++")
    assert result.returncode != 0
    assert "CXX=/no/such/c++ is no command" in result.stdout + result.stderr


@pytest.mark.core
def test_a_broken_source_beside_a_compiler_is_an_error(tree, tmp_path):
    (tree / "csrc" / "abi.cpp").write_text("#error broken\n")
    tools = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    result = build(tree, tmp_path / "out", path=tools)
    assert result.returncode != 0
    assert not list((tmp_path / "out").glob("*.whl"))


@pytest.mark.core
def test_object_files_of_one_instruction_set_share_nothing():
    tag = f"cp{sysconfig.get_config_var('py_version_nodot')}"
    assert_shares_nothing(ROOT.glob(f"build/{tag}-*/CMakeFiles/libwattwork.dir/csrc/**/*.cpp.o"))
