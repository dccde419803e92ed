"""Wheels for x86-64 Linux, one for each supported Python, that any glibc from 2.28 on takes: `make wheels`.

No container: the compiler is clang as the package ziglang brings it, with glibc 2.28's headers and symbols, so that
the glibc of the machine at hand does not matter. auditwheel checks the result, names it and gives it its tag; then the
test suite runs from the installed wheel, on a copy of tests/ in a folder of its own.

    wheels.py OUT [--pythons 3.11,3.12] [--no-tests]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLATFORM, TARGET = "manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28"
SUPPORTED = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))


def run(*command: object, cwd: Path | None = None, **env: str) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, env=os.environ | env, check=True)


def interpreter(version: str) -> Path:
    """One of that version which runs: `python3.12` on the PATH, or pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for python in filter(None, found):
        asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False)
        if told.stdout.strip() == version:
            return Path(python)
    sys.exit(f"There is no Python {version} here: put python{version} on the PATH, or leave it out with --pythons.")


def environment(where: Path, python: Path, *packages: str) -> Path:
    """A virtual environment with these packages; its bin."""
    run(python, "-m", "venv", where)
    run(where / "bin" / "python", "-m", "pip", "install", "-qq", "--upgrade", "pip>=25.1")
    run(where / "bin" / "python", "-m", "pip", "install", "-qq", *packages)
    return where / "bin"


def group(name: str) -> list[str]:
    return ["--group", f"{ROOT / 'pyproject.toml'}:{name}"]


def compiler(tools: Path, work: Path) -> Path:
    """clang for glibc 2.28, as a command.

    Its C++ library is linked into libwattwork and into _core, so the types of exceptions are there twice: their names
    must count, not their addresses, or what the one throws the other does not catch. libc++ has a setting for that.
    """
    (header,) = tools.parent.glob("lib/python*/site-packages/ziglang/lib/libcxx/include/typeinfo")
    setting = "#define _LIBCPP_TYPEINFO_COMPARISON_IMPLEMENTATION 2\n"
    text = header.read_text()
    header.write_text(text if text.startswith(setting) else setting + text)
    command = work / "zig-c++"
    command.write_text(f'#!/bin/sh\nexec "{tools}/python" -m ziglang c++ -target {TARGET} -mcpu=x86_64 "$@"\n')
    command.chmod(0o755)
    return command


def build(python: Path, tools: Path, work: Path, scratch: Path) -> Path:
    """The wheel as auditwheel leaves it."""
    bin_dir = environment(scratch / "build", python, *group("build"))
    env = {
        "PATH": os.pathsep.join([str(bin_dir), str(tools), os.environ["PATH"]]),
        "CXX": str(compiler(tools, work)),
        "ZIG_GLOBAL_CACHE_DIR": str(work / "zig-cache"),
        "WATTWORK_REQUIRE_NATIVE": "1",
    }
    made = ["wheel", "--no-build-isolation", "--no-deps", "-w", scratch / "made", "-C", f"build-dir={scratch}/cmake"]
    run(bin_dir / "python", "-m", "pip", *made, ROOT, **env)
    (wheel,) = (scratch / "made").glob("*.whl")
    audit = [tools / "python", "-m", "auditwheel"]
    run(*audit, "repair", "--plat", PLATFORM, "--only-plat", "--strip", "-w", scratch / "repaired", wheel, **env)
    (repaired,) = (scratch / "repaired").glob("*.whl")
    run(*audit, "show", repaired, **env)
    return repaired


def check(python: Path, wheel: Path, scratch: Path) -> None:
    """The test suite, from the installed wheel, beside nothing of the checkout."""
    bin_dir = environment(scratch / "test", python, wheel, *group("test"))
    copy = scratch / "elsewhere"
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    options = PROJECT["tool"]["pytest"]["ini_options"]
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    (copy / "pytest.toml").write_text("\n".join(["[pytest]", *lines]))
    chosen = ["-q", "-m", "not long and not emulated"]
    run(bin_dir / "python", "-m", "pytest", *chosen, cwd=copy, WATTWORK_REQUIRE_CORE="1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where the wheels go")
    parser.add_argument("--pythons", default=",".join(SUPPORTED), help="versions (default: %(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="build only")
    args = parser.parse_args()
    pythons = {version: interpreter(version) for version in args.pythons.split(",")}  # before the work begins
    work = args.out.resolve() / "work"  # kept: the C++ library is compiled once
    work.mkdir(parents=True, exist_ok=True)
    tools = environment(work / "tools", Path(sys.executable), *group("wheels"))
    for python in pythons.values():
        with tempfile.TemporaryDirectory(prefix="wattwork-") as name:
            wheel = build(python, tools, work, Path(name))
            if not args.no_tests:
                check(python, wheel, Path(name))
            shutil.copy(wheel, args.out)
        print(f"{args.out / wheel.name}", flush=True)


if __name__ == "__main__":
    main()
