"""What the main job takes where it is not told. Imports nothing heavy, so that `--help` can show it."""

from wattwork.trace import DEFAULT_LOAD

DEVICE = "cpu"
MODEL = "tiny-15m"  # on two cores its trace window holds tens of requests; smol-135m's, a few
SECONDS = 10.0  # of each of the five windows: with the rest, within 90 s on two cores
LOAD = DEFAULT_LOAD
REPLAY_SECONDS = 30.0  # of `wattwork replay`: on two cores some forty requests of the packaged trace
SIMULATED_SECONDS = 3600.0
BENCH_ROUNDS = 5  # of `wattwork hash --bench`: some 12 s, of which OpenSSL takes one each
LEVELS = 10
LADDER_SECONDS, LADDER_REPEATS = 20.0, 3  # a minute a level; with both kinds of work some half an hour
QUICK_LADDER_SECONDS = 2.0
SWITCH_REPEATS = 5  # of each of the twelve switches
