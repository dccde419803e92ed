"""`wattwork hash`, run as a miner runs it: as a process. What it says is held against hashlib."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
from headers import GENESIS, mainnet_headers, oracle

from wattwork._native import HAVE_CORE
from wattwork._search import isas, versions_side_by_side
from wattwork.rectangle import NONCES, Rect
from wattwork.work import Work, difficulty_to_target

COMMAND = [sys.executable, "-m", "wattwork", "hash"]
NONCE = 2083236893
HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
HIT = f"hit: nonce {NONCE}, version 0x00000001, hash {HASH}\n"
AROUND = ("--first", str(NONCE - 1000), "--count", "2000")
ROLLS = [isa for isa in isas() if versions_side_by_side(isa) > 1]

INT, HEX = {"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def an_object(**fields):
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


RECT = an_object(first=INT, count=INT, version_first=INT, versions=INT)
SCHEMA = an_object(
    schema={"const": "wattwork.hash/1"},
    header={"type": "string", "pattern": "^[0-9a-f]{160}$"},
    target=HEX,
    version_mask={"type": "string", "pattern": "^[0-9a-f]{8}$"},
    rect=RECT,
    hits={"type": "array", "items": an_object(nonce=INT, version=INT, hash=HEX)},
    hashes=INT,
    seconds={"type": "number", "minimum": 0},
    hashes_per_s={"type": ["number", "null"]},
    remaining={"type": "array", "items": RECT},
    isa={"enum": list(isas())},
    device={"const": "cpu"},
    threads={"type": "integer", "minimum": 1},
    complete={"type": "boolean"},
)


def wattwork_hash(*args, stdin=b"", **env):
    run = subprocess.run(
        [*COMMAND, *args], env=os.environ | env, input=stdin, capture_output=True, check=False, timeout=60
    )
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def as_json(*args, **env):
    code, out, err = wattwork_hash(*args, "--json", "-", **env)
    assert (code, err) == (0, "")
    return checked(json.loads(out))


def checked(result):
    """Valid by the schema, each hit exact by hashlib, and tested and remaining the whole."""
    jsonschema.validate(result, SCHEMA)
    work = Work.from_header(
        bytes.fromhex(result["header"]), target=int(result["target"], 16), version_mask=int(result["version_mask"], 16)
    )
    for hit in result["hits"]:
        (found,) = oracle(work, hit["nonce"], 1, number_of(work, hit["version"]), 1)
        assert found[2][::-1].hex() == hit["hash"]
    rect = result["rect"]
    left = sum(rest["count"] * rest["versions"] for rest in result["remaining"])
    assert result["hashes"] + left == rect["count"] * rect["versions"]
    assert result["complete"] == (not result["remaining"])
    return result


def number_of(work, version):
    return next(number for number in range(work.versions) if work.version_at(number) == version)


def as_in_json(hits):
    return [{"nonce": nonce, "version": version, "hash": digest[::-1].hex()} for nonce, version, digest in hits]


def test_the_genesis_block_is_the_default_and_its_nonce_is_found():
    code, out, err = wattwork_hash(*AROUND)
    assert (code, err) == (0, "")  # no progress where there is no terminal
    assert out.startswith(
        "No --header is given: this is the genesis block's.\nwattwork hash: 2,000 nonces at difficulty 1"
    )
    assert HIT in out
    assert out.splitlines()[-1].startswith("all 2,000 tested in ")
    assert out.endswith(": 1 hit\n")


def test_no_hit_is_no_failure():
    code, out, _ = wattwork_hash("--count", "100")
    assert code == 0
    assert out.endswith(": 0 hits\n")


def test_numbers_may_be_hexadecimal():
    assert HIT in wattwork_hash("--first", hex(NONCE), "--count", "0x10")[1]


@pytest.mark.parametrize("form", ["digits", "file of digits", "raw file", "digits on stdin", "raw stdin"])
def test_a_header_in_every_form(form, tmp_path):
    header = mainnet_headers()[-1]
    nonce = int.from_bytes(header[76:], "little")
    (tmp_path / "header").write_bytes(header if "raw" in form else header.hex().upper().encode() + b"\n")
    given = header.hex() if form == "digits" else "-" if "stdin" in form else str(tmp_path / "header")
    code, out, err = wattwork_hash(
        "--header", given, "--first", str(nonce), "--count", "1", stdin=(tmp_path / "header").read_bytes()
    )
    assert (code, err) == (0, "")
    assert f"hit: nonce {nonce}, " in out
    assert "--header" not in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--header", "00ff"], "must have 160 hexadecimal digits; there are 4"),
        (["--header", ""], "there are 0"),
        (["--header", "/no/such/file"], "--header /no/such/file: No such file or directory; give 160"),
        (["--header", "/"], "Is a directory"),
        (["--header", "/dev/zero"], "give 160 hexadecimal digits or the 80 raw bytes; there are 4096 or more"),
        (["--header", "-"], "--header from standard input: a block header must have 160"),
        (["--header", "0" * 160], "target of zero"),
        (["--first", "ten"], "--first must be a whole number"),
        (["--first", "4294967297"], "first must be from 0 to 2**32"),
        (["--count", "-1"], "count must be from 0"),
        (["--first", "1", "--count", "4294967296"], "nonces end at 2**32"),
        (["--target", "xyz"], "--target must be hexadecimal digits"),
        (["--target", "0"], "target must be from 1"),
        (["--bits", "01000000"], "0x01000000"),
        (["--difficulty", "0"], "difficulty must be a finite number above 0"),
        (["--difficulty", "hard"], "--difficulty must be a number above 0"),
        (["--bits", "1d00ffff", "--difficulty", "1"], "not allowed with"),
        (["--version-mask", "100000000"], "version_mask must be a 32-bit number"),
        (["--versions", "2"], "--version-mask 1fffe000"),
        (["--version-first", "1"], "--version-mask 1fffe000"),
        (["--version-mask", "3", "--versions", "5"], "the version mask makes 4"),
        (["--version-mask", "3", "--versions", "many"], "--versions must be a whole number"),
        (["--max-hits", "0"], "--max-hits must be at least 1"),
        (["--isa", "mmx"], "isa='mmx'"),
        (["--threads", "0"], "threads must be from 1 to 1024"),
        (["--json", "/no/such/folder/result.json"], "--json"),
        (["--bench", "0"], "--bench must be at least 1"),
        (["--bench", "--first", "5"], "leave --first out"),
        (["--bench", "--version-mask", "1"], "leave --version-mask out"),
    ],
)
def test_wrong_input_ends_with_2_and_says_what_to_change(args, says, capsys):
    from wattwork.cli import main

    if args[-1] == "-":
        code, out, err = wattwork_hash(*args)
    else:  # in this process: a start of Python each would take long
        try:
            code = main(["hash", *args])
        except SystemExit as exit:
            code = exit.code
        out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1 or err.startswith("usage")


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("options", [(), ("--version-mask", "1fffe000", "--versions", "70", "--version-first", "3")])
def test_hits_are_those_of_hashlib(isa, options):
    rolled = bool(options)
    work = Work.from_header(GENESIS, target=difficulty_to_target(1e-7), version_mask=0x1FFFE000 if rolled else 0)
    rect = Rect(NONCES - 300, 300, 3, 70) if rolled else Rect(5, 9000, 0, 1)
    result = as_json(
        *("--isa", isa, "--difficulty", "1e-7", "--first", str(rect.first), "--count", str(rect.count)), *options
    )
    assert sorted(map(str, result["hits"])) == sorted(map(str, as_in_json(oracle(work, *rect))))
    assert result["rect"] == rect._asdict()
    assert result["complete"]
    assert result["isa"] == isa
    assert int(result["target"], 16) == work.target


def test_where_there_is_a_mask_all_its_versions_are_searched():
    result = as_json("--version-mask", "e000", "--count", "100", "--target", "f" * 64)
    assert result["rect"] == {"first": 0, "count": 100, "version_first": 0, "versions": 8}
    assert len(result["hits"]) == 800
    assert {hit["version"] for hit in result["hits"]} == {1 + (number << 13) for number in range(8)}


def test_bits_and_target_and_difficulty_say_the_same():
    easy = [("--bits", "207fffff"), ("--target", "0x7fffff" + "0" * 58)]
    hits = [as_json(*option, "--count", "50")["hits"] for option in easy]
    assert hits[0] == hits[1]
    assert 10 < len(hits[0]) < 40
    assert as_json("--difficulty", "1", "--count", "0")["target"] == "00000000ffff" + "0" * 52


def test_max_hits_ends_it_and_says_how_to_go_on():
    options = ("--difficulty", "1e-6", "--threads", "1")
    code, out, _ = wattwork_hash(*options, "--count", "30000", "--max-hits", "2")
    assert code == 0
    hits = re.findall(r"^hit: nonce (\d+),", out, re.M)
    assert len(hits) == 2
    first, count = map(int, re.search(r"--first (\d+) --count (\d+)$", out).groups())
    assert first > int(hits[1])
    assert first + count == 30000
    rest = as_json(*options, "--first", str(first), "--count", str(count))["hits"]
    whole = as_json(*options, "--count", "30000")["hits"]
    assert [*map(int, hits), *(hit["nonce"] for hit in rest)] == [hit["nonce"] for hit in whole]


@pytest.mark.parametrize("mask", ["0", "1fffe000"])
def test_ctrl_c_loses_nothing(mask, tmp_path):
    path, easy = tmp_path / "result.json", ("--difficulty", "0.00005")
    command = [*COMMAND, *easy, "--version-mask", mask, "--json", str(path)]
    run = subprocess.Popen(command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = [run.stdout.readline().decode() for _ in range(3)]  # it has begun, and printed its first hit at once
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    out, err = (part.decode() for part in run.communicate(timeout=30))
    assert (run.returncode, err) == (130, "")
    printed = re.findall(r"^hit: nonce (\d+), version 0x(\w{8})", "".join(lines) + out, re.M)
    result = checked(json.loads(path.read_text()))
    assert not result["complete"]
    assert [(str(hit["nonce"]), f"{hit['version']:08x}") for hit in result["hits"]] == printed
    assert re.search(rf"^interrupted: {result['hashes']:,} of ", out, re.M)
    for rest in result["remaining"]:  # how to go on
        said = f"--first {rest['first']} --count {rest['count']}"
        said += f" --version-first {rest['version_first']} --versions {rest['versions']}" if mask != "0" else ""
        assert f"with {said}\n" in out
    # What was tested is a strip's beginning, and holds these hits and no others.
    first, rect = result["remaining"][0], result["rect"]
    assert (first["version_first"], rect["version_first"]) == (0, 0)
    again = as_json(*easy, "--version-mask", mask, "--versions", str(first["versions"]), "--count", str(first["first"]))
    assert again["hashes"] == result["hashes"]
    assert sorted(map(str, again["hits"])) == sorted(map(str, result["hits"]))


def test_json_is_written_too_where_nobody_reads_the_hits(tmp_path):
    path = tmp_path / "result.json"
    command = f"{' '.join(COMMAND)} --difficulty 0.00001 --json {path} | head -n 2; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (1, "")
    assert checked(json.loads(path.read_text()))["hits"]


def test_progress_on_a_terminal_only():
    """The bar is on standard error, and hits are not, though both may be one terminal."""
    master, slave = pty.openpty()
    command = [*COMMAND, "--difficulty", "0.0005", "--count", "20000000", "--threads", "1"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    out = run.communicate(timeout=30)[0].decode()
    assert run.returncode == 0
    assert re.search(rb"\d+% [\d.]+ [kM]H/s, \d+ hits?, \d:\d\d:\d\d left", shown)
    assert b"nonce" not in shown
    assert out.count("hit: ") > 1
    assert "left" not in out


def test_the_bench_prints_a_table_of_one_instruction_set(tmp_path):
    isa = "portable" if HAVE_CORE else "numpy"
    path = tmp_path / "bench.json"
    code, out, err = wattwork_hash("--bench", "1", "--isa", isa, "--json", str(path), PATH="/nonexistent")
    assert (code, err) == (0, "")
    assert out.startswith("wattwork hash --bench: ")
    assert "1 thread(s), " + ("g++" if HAVE_CORE else "without the native core") in out or "clang" in out
    assert re.search(rf"^{isa} +[\d.]+ +[\d.]+ +unknown$", out, re.M)
    assert (f"{isa}, version-rolled" in out) == (isa in ROLLS)
    assert "openssl is not installed: no ratio to it." in out
    result = json.loads(path.read_text())
    assert result["schema"] == "wattwork.search_bench/1"
    assert result["openssl_compressions_per_s"] is None
    assert [(row["isa"], row["kind"]) for row in result["searches"]] == [
        (isa, kind) for kind in ("plain", "rolled") if kind == "plain" or isa in ROLLS
    ]
    assert all(row["hashes_per_s"] > 0 and len(row["rounds_hashes_per_s"]) == 1 for row in result["searches"])


def test_the_bench_measures_beside_openssl_on_two_threads(tmp_path):
    """A stand-in for it, which takes no second."""
    openssl = tmp_path / "openssl"
    openssl.write_text(
        '#!/bin/sh\necho "Got: +F:25:sha256:1.00 from 0"\necho "$*" >&2\necho "+F:25:sha256:6400000.00"\n'
    )
    openssl.chmod(0o755)
    isa = isas()[0]
    args = ("--bench", "1", "--isa", isa, "--threads", "2", "--json", "-")
    code, out, _ = wattwork_hash(*args, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 0
    assert json.loads(out)["openssl_compressions_per_s"] == 100_000
    assert json.loads(out)["device"]["threads_used"] == 2


def test_the_bench_refuses_an_instruction_set_that_errs(monkeypatch):
    from wattwork import search_bench
    from wattwork._search import search
    from wattwork.errors import WattworkError

    def errs(*args, **options):
        result = search(*args, **options)
        return type(result)(result.hits[1:], result.hashes, result.seconds, result.remaining, result.isa)

    monkeypatch.setattr(search_bench, "search", errs)
    with pytest.raises(WattworkError, match="numpy does not find what hashlib finds"):
        search_bench.self_test("numpy")


def test_help_is_fast_and_names_the_options():
    begin = time.perf_counter()
    code, out, _ = wattwork_hash("--help")
    assert time.perf_counter() - begin < 2  # where nothing else runs, a tenth of it
    assert code == 0
    for option in ("--header", "--max-hits", "--bench", "--version-mask"):
        assert option in out
