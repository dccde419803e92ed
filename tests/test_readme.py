"""What the README says, run."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()

PROFILE, SCREEN, SCHEDULER = re.findall(r"```python\n(.*?)```", README, re.S)


def printed(code, folder):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=120).stdout


def test_its_profile_is_of_the_asic_it_names(tmp_path):
    assert printed(PROFILE, tmp_path) == "published 3500.0\n"


def test_its_screen_of_python_runs_and_prints_what_it_says(tmp_path):
    first, tokens, phase = printed(SCREEN, tmp_path).splitlines()
    assert first.startswith("[2083236893] ")
    assert len(eval(tokens)) == 8
    assert phase.split()[2] in ("counter", "estimated")


def test_its_scheduler_does_what_it_prints(tmp_path):
    assert printed(SCHEDULER, tmp_path).splitlines() == ["8 finished False", "4", "True cancelled", "2 1", "2"]


def test_the_commands_it_names_exist():
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_files_it_names_exist():
    root = Path(__file__).resolve().parents[1]
    for path in re.findall(r"`((?:csrc|src|tests|bench)/[\w./]*)`", README):
        assert (root / path).exists(), path
