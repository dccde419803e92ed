"""What the README says, run."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_its_screen_of_python_runs_and_prints_what_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    first, tokens, phase = run.stdout.splitlines()
    assert first.startswith("[2083236893] ")
    assert len(eval(tokens)) == 8
    assert phase.split()[2] in ("counter", "estimated")


def test_the_commands_it_names_exist():
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_files_it_names_exist():
    root = Path(__file__).resolve().parents[1]
    for path in re.findall(r"`((?:csrc|src|tests|bench)/[\w./]*)`", README):
        assert (root / path).exists(), path
