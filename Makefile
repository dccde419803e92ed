# make run     builds into .venv and runs `wattwork compare` on this machine's CPU
# make test    the whole test suite
# make help    the rest
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
EMULATORS := $(VENV)/emulators
CUDA_BIN := $(abspath $(VENV))/cuda/cu13/bin
export PYTHONNOUSERSITE := 1

NATIVE_SOURCES := $(shell find csrc kernels -type f 2>/dev/null) CMakeLists.txt
PYTHON_SOURCES := $(shell find src -type f -not -name '*.pyc') pyproject.toml
INSTALLED := $(STAMPS)/installed
# What pyproject.toml names; `pip install --no-deps` below leaves it to this.
DEPENDENCIES := $(shell sed -n 's/^dependencies = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ',')

SECONDS ?= 600

.PHONY: help run test test-long test-emulated test-torch test-pure wheels lint sanitize fuzz bench bench-decoder clean install
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

run: $(INSTALLED)
	$(BIN)/wattwork compare

install: $(INSTALLED)

test: $(INSTALLED) $(STAMPS)/cuda
	WATTWORK_CUDA_BIN=$(CUDA_BIN) WATTWORK_REQUIRE_CORE=1 $(BIN)/python -m pytest -m "not long and not emulated"

# make test-long   what takes minutes: slow tests, 10^7 operations on the scheduler under ASan+UBSan, and fuzzing
test-long: $(INSTALLED)
	WATTWORK_REQUIRE_CORE=1 $(BIN)/python -m pytest -m long
	tests/sanitize.sh address,undefined
	build/sanitize-address-undefined/test_scheduler 10000000 $$(date +%s)
	tests/fuzz/run.sh 120

# make test-emulated   AArch64 and older x86 under qemu; fetches (130 MB) what the PATH lacks, without root
test-emulated: $(INSTALLED) $(STAMPS)/emulators
	PATH="$$PATH:$(abspath $(EMULATORS))/usr/bin" WATTWORK_REQUIRE_CORE=1 $(BIN)/python -m pytest -m emulated

# make test-pure   the fallback without the core, in an environment of its own
test-pure: $(STAMPS)/pure
	WATTWORK_FALLBACK=1 $(VENV)/pure/bin/python -m pytest -m "not long and not emulated"

# make test-torch   the PyTorch engine, and golden logits made again by transformers, in an environment of its own (5 GB)
test-torch: $(STAMPS)/torch
	WATTWORK_REQUIRE_CORE=1 $(VENV)/torch/bin/python -m pytest tests/test_torch_engine.py
	PYTHONPATH=tests $(VENV)/torch/bin/python tests/golden/make_golden.py --check

# make wheels  manylinux_2_28 wheels for x86-64 in build/wheels, one for each supported Python, each tested where it is alone
wheels: $(STAMPS)/tools $(STAMPS)/cuda
	CUDACXX=$(CUDA_BIN)/nvcc WATTWORK_CUDA_BIN=$(CUDA_BIN) $(BIN)/python csrc/packaging/wheels.py build/wheels

# make lint    ruff and mypy --strict
lint: $(STAMPS)/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make sanitize   the C++ tests under ASan+UBSan, then under TSan
sanitize: $(STAMPS)/tools
	tests/sanitize.sh address,undefined
	tests/sanitize.sh thread

# make fuzz    the C ABI under ASan+UBSan with inputs made up, for SECONDS=600
fuzz: $(STAMPS)/tools
	tests/fuzz/run.sh $(SECONDS)

# make bench       the search beside OpenSSL and hashlib, its threads; the C ABI's cost per call; the scheduler's
bench: $(INSTALLED)
	$(BIN)/python bench/bench_search.py
	$(BIN)/python bench/bench_threads.py
	$(BIN)/python bench/bench_yield.py
	$(BIN)/python bench/bench_embed.py
	$(BIN)/python bench/bench_scheduler.py

# make bench-decoder   the CPU decoder beside ONNX Runtime, in an environment of its own
bench-decoder: $(STAMPS)/bench
	$(VENV)/bench/bin/python bench/bench_decoder.py

clean:
	rm -rf build $(VENV)

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wattwork needs Python 3.11 or later: make PYTHON=/path/to/python3")'
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	touch $@

$(STAMPS)/tools: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --group dev $(DEPENDENCIES)
	touch $@

# A broken build stops make; a missing compiler does, too. (`pip install .` alone takes the fallback there.)
$(INSTALLED): $(STAMPS)/tools $(NATIVE_SOURCES) $(PYTHON_SOURCES)
	PATH="$(abspath $(BIN)):$$PATH" WATTWORK_REQUIRE_NATIVE=1 $(BIN)/python -m pip install -qq --no-build-isolation \
	    --no-deps --force-reinstall -C cmake.define.WATTWORK_WERROR=ON .
	touch $@

$(STAMPS)/emulators: $(STAMPS)/venv tests/fetch_emulators.sh
	rm -rf $(EMULATORS)
	tests/fetch_emulators.sh $(EMULATORS)
	touch $@

$(STAMPS)/pure: $(STAMPS)/tools $(PYTHON_SOURCES)
	test -d $(VENV)/pure || $(PYTHON) -m venv $(VENV)/pure
	$(VENV)/pure/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(VENV)/pure/bin/python -m pip install -qq --group test --group build $(DEPENDENCIES)
	WATTWORK_PURE=1 $(VENV)/pure/bin/python -m pip install -qq --no-build-isolation --no-deps --force-reinstall .
	touch $@

# The CUDA compiler whose machine code the tests count: pinned, since another one's would be another count.
$(STAMPS)/cuda: $(STAMPS)/venv pyproject.toml
	rm -rf $(VENV)/cuda
	$(PYTHON) -m venv $(VENV)/cuda
	$(VENV)/cuda/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(VENV)/cuda/bin/python -m pip install -qq --group cuda
	ln -s "$$($(VENV)/cuda/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13" $(VENV)/cuda/cu13
	touch $@

$(STAMPS)/torch: $(INSTALLED)
	test -d $(VENV)/torch || $(PYTHON) -m venv $(VENV)/torch
	$(VENV)/torch/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(VENV)/torch/bin/python -m pip install -qq --group torch --group test --group build $(DEPENDENCIES)
	PATH="$(abspath $(VENV)/torch/bin):$$PATH" WATTWORK_REQUIRE_NATIVE=1 $(VENV)/torch/bin/python -m pip install -qq \
	    --no-build-isolation --no-deps --force-reinstall .
	touch $@

$(STAMPS)/bench: $(INSTALLED)
	test -d $(VENV)/bench || $(PYTHON) -m venv $(VENV)/bench
	$(VENV)/bench/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(VENV)/bench/bin/python -m pip install -qq --group bench --group build $(DEPENDENCIES)
	PATH="$(abspath $(VENV)/bench/bin):$$PATH" WATTWORK_REQUIRE_NATIVE=1 $(VENV)/bench/bin/python -m pip install -qq \
	    --no-build-isolation --no-deps --force-reinstall .
	touch $@
