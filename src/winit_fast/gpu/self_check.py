"""Lets a kernel draw only after it has drawn the frozen cases on that device, bit for bit.

A compiler may contract or approximate an operation, and only the device itself shows it. So each
kernel is checked at its first use on a device, which takes milliseconds. That it has passed is kept
in this process, and in a file for later ones, as long as nothing changes that decides its machine
code: the device, its driver, triton, and this folder's sources.
"""

import os
import platform
import threading
import warnings
from contextlib import suppress
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

import winit_fast._core as _core
from winit_fast._core import Distribution
from winit_fast.base.boxes import Box
from winit_fast.base.dtypes import FLOATS
from winit_fast.base.version import __version__
from winit_fast.gpu.cases import SEED, STREAM, Case, cases, digest
from winit_fast.gpu.choice import VARIABLE, wanted
from winit_fast.gpu.fill import fill as fill_unchecked
from winit_fast.gpu.fill import octaves

_WORDS = {"uint32": torch.int32, "uint64": torch.int64}

_known: dict[tuple[str, str, str], str | None] = {}
"""Kernel, dtype and device, with what is wrong with the kernel there, or None."""

_checking = threading.Lock()


def fill(
    distribution: Distribution, key: int, stream: int, out: Tensor, box: Box, offset: int = 0
) -> bool:
    """Draw a box of a logical tensor on its device, if there is a kernel, and it is right there.

    Parameters
    ----------
    distribution, key, stream, out, box, offset
        As in `winit_fast.gpu.fill.fill`.

    Returns
    -------
    bool
        False if nothing was written: no kernel draws this, or it is wrong there, of which a warning
        was given.

    Raises
    ------
    RuntimeError
        Instead, if ``WINIT_FAST_GPU=on``; and if the kernel must be checked while a CUDA graph is
        captured.
    """
    kernel, dtype = kernel_of(distribution), _NAMES[out.dtype]
    if (kernel, dtype) not in cases_by_kernel():
        return False
    place = kernel, dtype, str(out.device)
    fault = _known[place] if place in _known else _checked(place, out.device)
    if fault is not None:
        if wanted() == "on":
            raise RuntimeError(f"{VARIABLE}=on, but {fault}")
        return False
    fill_unchecked(distribution, key, stream, out, box, offset)
    return True


_NAMES = {getattr(torch, kind.name): kind.name for kind in FLOATS.values()} | {
    dtype: name for name, dtype in _WORDS.items()
}
"""The dtypes of the cases by torch's; raw words are torch's signed integers."""


@lru_cache(maxsize=1024)
def kernel_of(distribution: Distribution) -> str:
    """Return the name of the kernel that draws from a distribution, without that of the dtype."""
    p = _core.parameters(distribution)
    return f"{p['kernel']} {octaves(p)}" if p["kernel"] == "truncated" else p["kernel"]


@cache
def cases_by_kernel() -> dict[tuple[str, str], list[Case]]:
    """Read the frozen cases, by kernel and dtype."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in cases():
        found.setdefault((kernel_of(case.distribution), case.dtype), []).append(case)
    return found


def _checked(place: tuple[str, str, str], device: torch.device) -> str | None:
    """Check a kernel, unless another thread has or an earlier process did."""
    kernel, dtype, _ = place
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"the kernel of {kernel} numbers of {dtype} must be checked before its first use on "
            f"{device}, which a CUDA graph cannot capture: fill such a tensor once before"
        )
    with _checking:
        if place not in _known:
            file = _passed(kernel, dtype, device)
            if file is not None and _exists(file):
                fault = None
            else:
                fault = _fault(kernel, dtype, device)
                if fault is None and file is not None:
                    _keep(file)
            _known[place] = fault
            if fault is not None and wanted() != "on":
                text = f"{fault}: such tensors are filled through host memory"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
    return _known[place]


def _fault(kernel: str, dtype: str, device: torch.device) -> str | None:
    """Draw the frozen cases of a kernel; return what is wrong, or None."""
    what = f"the kernel of {kernel} numbers of {dtype}"
    for case in cases_by_kernel()[kernel, dtype]:
        try:
            found = _draw(case, device)
        except Exception as error:  # whatever a compiler or a driver may raise
            return f"{what} does not run on {device}: {type(error).__name__}: {error}"
        if found != case.blake2b:
            return f"{what} draws other bits on {device} than on a processor"
    return None


def _draw(case: Case, device: torch.device) -> str:
    """Draw a case, and return its hash."""
    dtype = _WORDS.get(case.dtype) or getattr(torch, case.dtype)
    out = torch.empty(case.box.shape[::-1], dtype=dtype, device=device).permute(
        *reversed(range(len(case.box.shape)))
    )
    fill_unchecked(case.distribution, SEED, STREAM, out, case.box)
    return digest(out.contiguous().flatten().view(torch.uint8).cpu().numpy())


def _passed(kernel: str, dtype: str, device: torch.device) -> Path | None:
    """Return the file that exists if a kernel has passed; None if none can be kept."""
    circumstances = _circumstances(device)
    if circumstances is None:
        return None
    name = blake2b(f"{kernel} {dtype} {circumstances}".encode(), digest_size=16).hexdigest()
    try:
        return _folder() / name
    except RuntimeError:  # there is no home
        return None


def _folder() -> Path:
    """Return the folder of the files, under the user's cache directory."""
    said = os.environ.get("XDG_CACHE_HOME", "")  # the specification wants an absolute path
    caches = Path(said) if said.startswith("/") else Path("~/.cache").expanduser()
    return caches / "winit_fast" / "gpu"


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a folder that may not be read
        return False


def _keep(file: Path) -> None:
    """Make an empty file, if that is possible."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@cache
def _circumstances(device: torch.device) -> str | None:
    """Return all that decides a kernel's machine code on a device; None if it is not known."""
    driver = _driver()
    if driver is None or device.type != "cuda":
        return None
    import triton

    own = torch.cuda.get_device_properties(device)
    kind = getattr(own, "gcnArchName", f"sm_{own.major}{own.minor}")
    return (
        f"{own.name}, {kind}, {driver}, triton {triton.__version__}, torch {torch.__version__}, "
        f"winit_fast {__version__} {_sources()}"
    )


@cache
def _driver() -> str | None:
    """Return the version of the driver, as Linux knows it: amdgpu may be a part of Linux itself."""
    for module, otherwise in (("nvidia", None), ("amdgpu", platform.release())):
        folder = Path("/sys/module") / module
        try:
            return f"{module} {(folder / 'version').read_text().strip()}"
        except OSError:
            if otherwise is not None and folder.exists():
                return f"{module} of Linux {otherwise}"
    return None


def _sources() -> str:
    """Hash the sources of the kernels, their coefficients and the frozen cases."""
    found = blake2b(repr(_core.coefficients()).encode(), digest_size=16)
    for file in sorted(files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith((".py", ".toml")):
            found.update(file.read_bytes())
    return found.hexdigest()
