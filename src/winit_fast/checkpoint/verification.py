"""Verification of a checkpoint: makes every tensor of its plan again and compares."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from winit_fast.base import safetensors, threads
from winit_fast.base.arguments import path, word
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.dtypes import find_any
from winit_fast.checkpoint import layout, provenance, segments
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.checkpoint.reader import Place, places
from winit_fast.checkpoint.values import values
from winit_fast.initializers.protocol import Filler
from winit_fast.models.plan_json import NotWritten
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import STREAM_VERSION
from winit_fast.streams.stream import Stream

_BOUND = 6.0
"""A correlation below this many standard errors counts as none. Unrelated numbers exceed it with
probability 2e-9."""


@dataclass(frozen=True)
class Finding:
    """The result of `verify` for one tensor.

    Attributes
    ----------
    name : str
    status : str
        "fresh": every bit is that of the plan. "zero": all elements are zero, but not in the plan.
        "constant": all are one other number, but not in the plan.
        "unrelated": the elements do not correlate with the plan's, as with another seed.
        "changed": they correlate, as after training, or some are still those of the plan.
        "missing": the tensor is in no file. "other": it has another shape or dtype. "unknown": it
        is in a file, but not in the plan. "not checked": the plan could not store its scheme.
    detail : str
        The first difference, or another problem.
    differing : int
        Number of elements that differ.
    not_finite : int
        Number of these that are NaN or infinite.
    index : tuple of int or None
        Index of the first of them, in C order.
    found, expected : float or None
        Its value in the file, and in the plan.
    """

    name: str
    status: str
    detail: str = ""
    differing: int = 0
    not_finite: int = 0
    index: tuple[int, ...] | None = None
    found: float | None = None
    expected: float | None = None


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes
    ----------
    tensors : tuple of Finding
        In the order of the plan, then the tensors that are not in the plan.
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
        """Whether every tensor has the bits of the plan, and no tensor is unknown."""
        return all(finding.status == "fresh" for finding in self.tensors)


def verify(
    directory: str | os.PathLike[str],
    *,
    tensors: Sequence[TensorSpec] | None = None,
    plan: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Make every tensor of a checkpoint again, and compare bit for bit.

    Parameters
    ----------
    directory : path
        The checkpoint's directory.
    tensors : sequence of TensorSpec, optional
        The expected tensors, by default those of the plan. If given, their dtypes are those of the
        files.
    plan : path, optional
        A plan file of a checkpoint of this model. By default winit_fast.plan.json in the directory,
        whose digest must then be the one in the headers.
    seed : int, optional
        By default the seed in the headers.
    num_threads : int, optional
        By default `winit_fast.get_num_threads`.
    progress : callable, optional
        Called with the number of bytes compared so far and the total.

    Returns
    -------
    Verification

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If a file is damaged, the headers contradict each other or the plan, or the provenance is
        missing. In the last case, give ``tensors`` and ``seed``.

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
    if plan is not None:
        plan = path("plan", plan)
        if tensors is not None:
            raise ValueError(f"plan must not be given beside tensors, got {plan!r}")
    found_in = places(folder)
    origin = _origin(folder, found_in)
    if seed is None:
        seed = _seed(folder, origin)
    if tensors is not None:
        planned = [_as_stored(tensor, found_in) for tensor in layout.checked(tensors)]
    elif plan is not None:
        planned, _ = provenance.read_plan(Path(plan))
    else:
        if not (folder / PLAN).exists():
            raise ValueError(
                f"{folder} has no {PLAN}: tensors must be given, or plan (--plan FILE), which may "
                f"be the {PLAN} of another checkpoint of this model"
            )
        planned, digest = provenance.read_plan(folder / PLAN)
        if origin.get(provenance.DIGEST_KEY, digest) != digest:
            raise ValueError(
                f"{folder / PLAN} is not the plan whose digest is in the headers: it was changed, "
                "or belongs to another checkpoint"
            )

    begin = time.perf_counter()
    comparisons, findings = [], dict[str, Finding]()
    for tensor in planned:
        found = _before_reading(tensor, found_in.get(tensor.name))
        if found is not None:
            findings[tensor.name] = found
        else:
            comparisons.append(_Comparison(tensor, found_in[tensor.name], seed))
    total = sum(comparison.nbytes for comparison in comparisons)
    _compare(comparisons, count, progress)
    findings |= {comparison.name: comparison.finding() for comparison in comparisons}
    names = [tensor.name for tensor in planned]
    unknown = [Finding(name, "unknown", "the plan has no such tensor") for name in found_in]
    return Verification(
        tensors=tuple(findings[name] for name in names)
        + tuple(finding for finding in unknown if finding.name not in findings),
        seed=seed,
        nbytes=total,
        seconds=time.perf_counter() - begin,
    )


def _origin(folder: Path, places: Mapping[str, Place]) -> dict[str, str]:
    """Read the provenance from the headers, which must all agree."""
    keys = (provenance.STREAM_KEY, provenance.SEED_KEY, provenance.DIGEST_KEY)
    headers = {place.file: place.header.metadata for place in places.values()}
    origins = {
        file: {key: metadata[key] for key in keys if key in metadata}
        for file, metadata in headers.items()
    }
    origin = next(iter(origins.values()), {})
    if origin and len(origin) < len(keys):
        raise ValueError(
            f"the headers in {folder} must have all of {', '.join(keys)}, which say where the "
            f"numbers come from, got only {origin}"
        )
    for file, own in origins.items():
        if own != origin:
            raise ValueError(
                f"{file} has other metadata ({own}) than the files before it ({origin})"
            )
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
        raise ValueError(
            f"the headers in {folder} do not say the seed: seed must be given (--seed)"
        )
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ValueError(
            f"the headers in {folder} must have an integer below 2^64 as seed, got {text!r:.200}"
        )
    return word(provenance.SEED_KEY, int(text))


def _as_stored(tensor: TensorSpec, places: Mapping[str, Place]) -> TensorSpec:
    """Give a tensor the dtype that it has in its file."""
    place = places.get(tensor.name)
    dtype = None if place is None else safetensors.ALL_DTYPES.get(place.entry.tag)
    return replace(tensor, dtype="float32" if dtype is None else dtype)  # type: ignore[arg-type]


def _before_reading(tensor: TensorSpec, place: Place | None) -> Finding | None:
    """Return a finding that does not require reading the tensor, or None."""
    dtype = find_any(tensor.dtype)
    if place is None:
        return Finding(tensor.name, "missing", "it is in no file")
    wanted = (safetensors.ALL_TAGS[dtype], tensor.shape)
    found = (place.entry.tag, place.entry.shape)
    if found != wanted:
        return Finding(
            tensor.name, "other", f"it is {found[0]} {found[1]}, should be {wanted[0]} {wanted[1]}"
        )
    if isinstance(tensor.initializer, NotWritten):
        shown = tensor.initializer.shown
        return Finding(tensor.name, "not checked", f"the plan could not store {shown}")
    return None


class _Comparison:
    """The comparison of one tensor.

    It uses the writer's boxes, because orthogonal matrices have the same bits only in equal boxes.
    """

    def __init__(self, tensor: TensorSpec, place: Place, seed: int) -> None:
        self.name = tensor.name
        self.nbytes = place.entry.end - place.entry.begin
        self._tensor = tensor
        self._dtype = find_any(tensor.dtype)
        self._place = place
        self._seed = seed
        self._lock = threading.Lock()
        self._found, self._made = _Constancy(), _Constancy()
        self._differing = self._not_finite = 0
        self._first: tuple[tuple[int, ...], float, float] | None = None
        # sums of 1, x, y, xx, yy, xy; x is the expected number, y the stored one
        self._sums = np.zeros(6)

    def pieces(self) -> Iterator[tuple[_Comparison, Filler, Box]]:
        """Cut the tensor as the writer does."""
        scheme, shape, dtype = self._tensor.scheme, self._tensor.shape, self._dtype
        scheme.check(shape, dtype)
        fill = scheme.prepared(shape, dtype, Stream(self._seed, self._tensor.stream))
        for cut in cuts(shape, segments.SEGMENT_BYTES // dtype.itemsize):
            yield self, fill, whole(shape).cut(cut)

    def compare(self, fill: Filler, box: Box, memory: _Memory) -> int:
        """Compare a box, and return its number of bytes."""
        dtype = self._dtype
        nbytes = math.prod(box.sizes) * dtype.itemsize
        one, other = memory.made[:nbytes], memory.found[:nbytes]
        made, found = (each.view(dtype).reshape(box.sizes) for each in (one, other))
        fill(made, box, 1)
        self._place.read(box.first * dtype.itemsize, other)
        differs = None
        if not memory.are_equal(nbytes):
            differs = _words(made) != _words(found)
            sums = self._products(one, other)
        with self._lock:
            self._found.see(_words(found))
            self._made.see(_words(made))
            if differs is not None:
                self._sums += sums
                self._note(made, found, differs, box)
        return nbytes

    def _products(self, made: Array, found: Array) -> Array:
        """Compute the sums that a correlation needs, over elements that are finite."""
        tag = self._place.entry.tag
        x, y = (np.asarray(values(each, tag), np.float64) for each in (made, found))
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            x, y = x[finite], y[finite]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array([x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y])

    def finding(self) -> Finding:
        """Return the finding, when all boxes have been compared."""
        if self._first is None:
            return Finding(self.name, "fresh")
        size = math.prod(self._tensor.shape)
        if self._found.value == 0:
            status = "zero"
        elif self._found.value is not None and self._made.value is None:
            status = "constant"
        else:
            status = "unrelated" if self._is_unrelated(size) else "changed"
        index, found, expected = self._first
        detail = (
            f"element {index} is {found!r}, should be {expected!r}; "
            f"{self._differing:,} of {size:,} elements differ"
        )
        if self._not_finite:
            detail += f", {self._not_finite:,} of them not finite"
        return Finding(
            self.name, status, detail, self._differing, self._not_finite, index, found, expected
        )

    def _is_unrelated(self, size: int) -> bool:
        n, x, y, xx, yy, xy = self._sums.tolist()
        variances = (n * xx - x * x, n * yy - y * y)
        # not all elements were compared, or a side is constant
        if n < size or n < 100 or min(variances) <= 0:
            return False
        return n * (n * xy - x * y) ** 2 < _BOUND**2 * variances[0] * variances[1]

    def _note(self, made: Array, found: Array, differs: Array, box: Box) -> None:
        self._differing += int(np.count_nonzero(differs))
        at = np.unravel_index(int(np.argmax(differs)), differs.shape)
        index = tuple(start + int(step) for start, step in zip(box.starts, at, strict=True))
        if self._first is None or index < self._first[0]:
            self._first = index, float(found[at]), float(made[at])
        self._not_finite += int(np.count_nonzero(differs & ~np.isfinite(found)))


class _Constancy:
    """Tracks whether all words are the same: `value` is that word, None if they differ."""

    def __init__(self) -> None:
        self.value: int | None = -1  # -1: no word was seen yet

    def see(self, words: Array) -> None:
        if self.value is None or not words.size:
            return
        first = int(words.flat[0])
        if self.value not in (-1, first) or not (words == first).all():
            self.value = None
        else:
            self.value = first


def _words(array: Array) -> Array:
    return array.view(f"u{array.itemsize}")


class _Memory(threading.local):
    """The buffers of each thread: a box as planned, and as it is in the file."""

    def __init__(self) -> None:
        self.made, self.found = np.empty((2, max(8, segments.SEGMENT_BYTES)), np.uint8)
        self._differs = np.empty(self.made.size // 8, np.bool_)

    def are_equal(self, nbytes: int) -> bool:
        """Compare this many bytes of the two buffers, in words of eight."""
        whole = nbytes // 8 * 8
        made, found = self.made[:whole].view(np.uint64), self.found[:whole].view(np.uint64)
        differs = np.not_equal(made, found, out=self._differs[: whole // 8])
        rest = slice(whole, nbytes)
        return not differs.any() and np.array_equal(self.made[rest], self.found[rest])


def _compare(
    comparisons: Sequence[_Comparison],
    num_threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = sum(comparison.nbytes for comparison in comparisons)
    caller, lock, done = threading.get_ident(), threading.Lock(), 0
    memory = _Memory()

    def work(piece: tuple[_Comparison, Filler, Box]) -> None:
        nonlocal done
        comparison, fill, box = piece
        nbytes = comparison.compare(fill, box, memory)
        with lock:
            done += nbytes
        if progress is not None and threading.get_ident() == caller:
            progress(done, total)

    pieces = (piece for comparison in comparisons for piece in comparison.pieces())
    threads.run(work, pieces, num_threads)
    if progress is not None:
        progress(total, total)
