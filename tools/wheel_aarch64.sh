#!/usr/bin/env bash
# Cross-compiles a wheel for aarch64 from the sdist in dist/, installs it for an arm64 Python, and
# runs tests of it in qemu's user mode. Needs Debian with gcc-aarch64-linux-gnu and qemu-user.
# Python and its libraries are Debian's packages; they are unpacked in build/, not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/build/aarch64
root=$folder/root
python="qemu-aarch64 -L $root $root/usr/bin/python3.11"
packages=(
    libbz2-1.0 libc6 libexpat1 libffi8 libgcc-s1 liblzma5 libpython3.11-dev libpython3.11-minimal
    libpython3.11-stdlib libssl3 libstdc++6 python3.11-minimal zlib1g
)

if [ ! -e "$root/unpacked" ]; then
    mkdir -p "$root" "$folder/packages" "$folder/lists/partial"
    apt=(-qq -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
        -o Dir::State::lists="$folder/lists" -o APT::Sandbox::User=root)
    apt-get update "${apt[@]}"
    (cd "$folder/packages" && apt-get download "${apt[@]}" "${packages[@]/%/:arm64}")
    for package in "$folder"/packages/*.deb; do dpkg-deb -x "$package" "$root"; done
    touch "$root/unpacked"
fi

# Build the wheel: this machine's Python runs the build, with the target's headers and compiler.
rm -rf "$folder/wheel" "$folder/site"
rm -f dist/*aarch64.whl
_PYTHON_HOST_PLATFORM=linux-aarch64 CC=aarch64-linux-gnu-gcc \
    LDSHARED='aarch64-linux-gnu-gcc -shared -s' CFLAGS="-O3 -g0 -I$root/usr/include/python3.11 -I$root/usr/include" \
    pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$folder/wheel" dist/*.tar.gz
auditwheel repair --wheel-dir dist "$folder"/wheel/*.whl
abi3audit --strict dist/*aarch64.whl

# Test the wheel, installed by pip with the aarch64 wheels of NumPy and ml_dtypes. Emulation is
# slow, so only tests of what could differ on another processor run.
pip install --quiet --target "$folder/site" --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --abi abi3 --abi none \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    dist/*aarch64.whl hypothesis pytest pytest-benchmark
mkdir -p "$folder/tests"
cp -r pyproject.toml tests "$folder/tests"
cd "$folder/tests"
PYTHONPATH=$folder/site $python -m pytest -q -p no:cacheprovider \
    tests/test_hashes.py::test_hashes tests/test_hashes.py::test_subnormals_in_another_environment \
    tests/test_orthogonal.py::test_bits_are_frozen tests/test_stream.py
