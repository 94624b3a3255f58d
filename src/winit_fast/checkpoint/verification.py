"""Comparing a checkpoint with what its plan says: every tensor is made once more."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from winit_fast.base import safetensors, threads
from winit_fast.base.arguments import path, word
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.dtypes import find
from winit_fast.base.files import regular_file
from winit_fast.checkpoint import layout, provenance, writer
from winit_fast.checkpoint.layout import INDEX, SINGLE
from winit_fast.checkpoint.provenance import PLAN, Planned
from winit_fast.initializers.protocol import Filler
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import STREAM_VERSION, Stream

_BOUND = 6.0
"""Correlations of less than this many standard errors are none: 2e-9 of those that are none."""


@dataclass(frozen=True)
class Finding:
    """What was found of one tensor.

    Attributes
    ----------
    name : str
    status : str
        "fresh": every bit is what the plan says. "zero": all elements are zeros, and should not be.
        "unrelated": the elements have nothing to do with those of the plan, as of another seed.
        "changed": they have, as after training, or some of them are still the plan's. "missing":
        in no file. "other": of another shape or type. "unknown": in a file, not in the plan.
        "not checked": the plan could not hold its scheme.
    detail : str
        The first difference, or what is wrong.
    differing : int
        How many elements differ.
    """

    name: str
    status: str
    detail: str = ""
    differing: int = 0


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes
    ----------
    tensors : tuple of Finding
        In the order of the plan; then those that it does not have.
    seed : int
    nbytes : int
        Bytes that were compared.
    seconds : float
    """

    tensors: tuple[Finding, ...]
    seed: int
    nbytes: int
    seconds: float

    @property
    def fresh(self) -> bool:
        """Whether every tensor is what the plan says, and there is no other."""
        return all(finding.status == "fresh" for finding in self.tensors)


def verify(
    directory: str | os.PathLike[str],
    *,
    tensors: Sequence[TensorSpec] | None = None,
    seed: int | None = None,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Make every tensor of a checkpoint again, and compare.

    Parameters
    ----------
    directory : path
        That of the checkpoint.
    tensors : sequence of TensorSpec, optional
        What it should hold; by default, what winit_fast.plan.json beside it says. The types are
        then those of the files.
    seed : int, optional
        By default that of the files' headers.
    num_threads : int, optional
        By default as many as any fill uses.
    progress : callable, optional
        Called with the bytes that are compared and those that there are.

    Returns
    -------
    Verification

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If a file is damaged, the headers do not agree with each other or with the plan, or nothing
        says where the numbers come from: ``tensors`` and ``seed`` do then.

    Examples
    --------
    >>> import tempfile
    >>> import winit_fast as wf
    >>> from winit_fast.checkpoint import write_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = write_checkpoint(folder, [TensorSpec("w", (8, 8), wf.HeNormal())], seed=3)
    ...     verify(folder).fresh, verify(folder, seed=4).tensors[0].status
    (True, 'changed')
    """
    folder = Path(path("directory", directory))
    count = threads.resolve(num_threads)
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be a function, got {progress!r}")
    if seed is not None:
        seed = word("seed", seed)
    places = _places(folder)
    origin = _origin(folder, places)
    if seed is None:
        seed = _seed(folder, origin)
    if tensors is None:
        if not (folder / PLAN).exists():
            raise ValueError(f"{folder} has no {PLAN}: tensors must be given")
        planned, digest = provenance.read_plan(folder / PLAN)
        if origin.get(provenance.DIGEST_KEY, digest) != digest:
            raise ValueError(
                f"{folder / PLAN} is not the plan that the headers name: it has been changed, or "
                "is another checkpoint's"
            )
    else:
        planned = [_as_planned(tensor, places) for tensor in layout.checked(tensors)]

    begin = time.perf_counter()
    comparisons, findings = [], dict[str, Finding]()
    for tensor in planned:
        found = _before_reading(tensor, places.get(tensor.name))
        if found is not None:
            findings[tensor.name] = found
        else:
            comparisons.append(_Comparison(tensor, places[tensor.name], seed))
    total = sum(comparison.nbytes for comparison in comparisons)
    _compare(comparisons, count, progress)
    findings |= {comparison.name: comparison.finding() for comparison in comparisons}
    names = [tensor.name for tensor in planned]
    unknown = [Finding(name, "unknown", "the plan has no such tensor") for name in places]
    return Verification(
        tensors=tuple(findings[name] for name in names)
        + tuple(finding for finding in unknown if finding.name not in findings),
        seed=seed,
        nbytes=total,
        seconds=time.perf_counter() - begin,
    )


class _Place(NamedTuple):
    """Where a tensor stands: its file, that file's header and the tensor's entry in it."""

    file: str
    header: safetensors.Header
    entry: safetensors.Entry


def _places(folder: Path) -> dict[str, _Place]:
    """Find all tensors of a checkpoint, as a loader does."""
    if (folder / SINGLE).exists():
        files = None
        names = [SINGLE]
    elif (folder / INDEX).exists():
        files = safetensors.read_index(str(folder / INDEX))
        names = sorted({*files.values()})
    else:
        raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    places = {}
    for name in names:
        header = safetensors.read_header(str(folder / name))
        for tensor, entry in header.entries.items():
            if files is not None and files.get(tensor) != name:
                raise ValueError(f"{folder / name} holds {tensor!r}, which {INDEX} does not say")
            places[tensor] = _Place(str(folder / name), header, entry)
    if files is not None and (lost := files.keys() - places.keys()):
        raise ValueError(f"{folder / INDEX} names {min(lost)!r}, which its file does not hold")
    return places


def _origin(folder: Path, places: Mapping[str, _Place]) -> dict[str, str]:
    """Read where the numbers come from, which all headers must agree on."""
    keys = (provenance.STREAM_KEY, provenance.SEED_KEY, provenance.DIGEST_KEY)
    headers = {place.file: place.header.metadata for place in places.values()}
    origins = {
        file: {key: metadata[key] for key in keys if key in metadata}
        for file, metadata in headers.items()
    }
    origin = next(iter(origins.values()), {})
    if origin and len(origin) < len(keys):
        raise ValueError(
            f"the headers in {folder} have lost a part of what they say of the numbers' origin: "
            f"they have {origin}, not {', '.join(keys)}"
        )
    for file, own in origins.items():
        if own != origin:
            raise ValueError(f"{file} is of another origin ({own}) than files before it ({origin})")
    stream = origin.get(provenance.STREAM_KEY, str(STREAM_VERSION))
    if stream != str(STREAM_VERSION):
        raise ValueError(
            f"the checkpoint in {folder} has stream version {stream}, this package makes "
            f"{STREAM_VERSION}"
        )
    return origin


def _seed(folder: Path, origin: Mapping[str, str]) -> int:
    text = origin.get(provenance.SEED_KEY)
    if text is None:
        raise ValueError(f"the headers in {folder} do not say the seed: seed must be given")
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(f"the headers in {folder} have a seed that is none: {text!r:.200}")
    return word(provenance.SEED_KEY, int(text))


def _as_planned(tensor: TensorSpec, places: Mapping[str, _Place]) -> Planned:
    """Take a tensor's type from its file."""
    place = places.get(tensor.name)
    dtype = None if place is None else safetensors.DTYPES.get(place.entry.tag)
    kind = find("float32" if dtype is None else dtype)
    scheme = tensor.scheme
    return Planned(tensor.name, tensor.shape, kind, scheme, repr(scheme), tensor.stream)


def _before_reading(tensor: Planned, place: _Place | None) -> Finding | None:
    """Find what is wrong with a tensor that need not be read."""
    if place is None:
        return Finding(tensor.name, "missing", "it is in no file")
    wanted = (safetensors.TAGS[tensor.kind.dtype], tensor.shape)
    found = (place.entry.tag, place.entry.shape)
    if found != wanted:
        return Finding(
            tensor.name, "other", f"it is {found[0]} {found[1]}, should be {wanted[0]} {wanted[1]}"
        )
    if tensor.initializer is None:
        return Finding(tensor.name, "not checked", f"the plan could not hold {tensor.shown}")
    return None


class _Comparison:
    """One tensor, compared in the writer's boxes, where every scheme gives the writer's bits."""

    def __init__(self, tensor: Planned, place: _Place, seed: int) -> None:
        self.name = tensor.name
        self.nbytes = place.entry.end - place.entry.begin
        self._tensor = tensor
        self._place = place
        self._seed = seed
        self._lock = threading.Lock()
        self._is_zero = True
        self._differing = 0
        self._first: tuple[tuple[int, ...], str] | None = None
        self._sums = np.zeros(6)  # of 1, x, y, x x, y y, x y, where x and y may differ

    def pieces(self) -> Iterator[tuple[_Comparison, Filler, Box]]:
        """Cut the tensor as the writer does."""
        _, shape, kind, initializer, _, stream = self._tensor
        assert initializer is not None, "not to be compared"
        initializer.check(shape, kind.dtype)
        fill = initializer.prepared(shape, kind.dtype, Stream(self._seed, stream))
        for cut in cuts(shape, writer.SEGMENT_BYTES // kind.dtype.itemsize):
            yield self, fill, whole(shape).cut(cut)

    def compare(self, fill: Filler, box: Box) -> int:
        """Compare a box, and give its bytes."""
        dtype = self._tensor.kind.dtype
        made = np.empty(box.sizes, dtype)
        fill(made, box, 1)
        found = self._read(box, dtype)
        equal = _words(made) == _words(found)
        with self._lock:
            self._is_zero = self._is_zero and not _words(found).any()
            if not equal.all():
                self._note(made, found, ~equal, box)
        return made.nbytes

    def finding(self) -> Finding:
        """Tell what all boxes together say."""
        if not self._differing:
            return Finding(self.name, "fresh")
        assert self._first is not None, "noted with the first difference"
        size = math.prod(self._tensor.shape)
        status = "zero" if self._is_zero else "unrelated" if self._is_unrelated(size) else "changed"
        detail = f"{self._first[1]}; {self._differing:,} of {size:,} elements differ"
        return Finding(self.name, status, detail, self._differing)

    def _is_unrelated(self, size: int) -> bool:
        n, x, y, xx, yy, xy = self._sums.tolist()
        variances = (n * xx - x * x, n * yy - y * y)
        if n < size or n < 100 or min(variances) <= 0:  # some boxes are equal; or constants
            return False
        return n * (n * xy - x * y) ** 2 < _BOUND**2 * variances[0] * variances[1]

    def _read(self, box: Box, dtype: np.dtype[Any]) -> Array:
        found = np.empty(box.sizes, dtype)
        with regular_file(self._place.file) as file:
            file.seek(
                self._place.header.size + self._place.entry.begin + box.first * dtype.itemsize
            )
            memory = _words(found).reshape(-1).view(np.uint8).data
            if file.readinto(memory) != found.nbytes:  # type: ignore[attr-defined]
                raise ValueError(f"{self._place.file} is no whole safetensors file any more")
        return found

    def _note(self, made: Array, found: Array, differs: Array, box: Box) -> None:
        self._differing += int(np.count_nonzero(differs))
        at = np.unravel_index(int(np.argmax(differs)), differs.shape)
        index = tuple(start + int(step) for start, step in zip(box.starts, at, strict=True))
        if self._first is None or index < self._first[0]:
            text = f"element {index} is {float(found[at])!r}, should be {float(made[at])!r}"
            self._first = index, text
        x, y = made.astype(np.float64).ravel(), found.astype(np.float64).ravel()
        finite = np.isfinite(x) & np.isfinite(y)
        x, y = x[finite], y[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            self._sums += [x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y]


def _words(array: Array) -> Array:
    return array.view(f"u{array.itemsize}")


def _compare(
    comparisons: Sequence[_Comparison],
    num_threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = sum(comparison.nbytes for comparison in comparisons)
    caller, lock, done = threading.get_ident(), threading.Lock(), 0

    def work(piece: tuple[_Comparison, Filler, Box]) -> None:
        nonlocal done
        comparison, fill, box = piece
        nbytes = comparison.compare(fill, box)
        with lock:
            done += nbytes
        if progress is not None and threading.get_ident() == caller:
            progress(done, total)

    pieces = (piece for comparison in comparisons for piece in comparison.pieces())
    threads.run(work, pieces, num_threads)
    if progress is not None:
        progress(total, total)
