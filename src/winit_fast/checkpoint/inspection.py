"""Inspection of any safetensors checkpoint: statistics of every tensor, and repeats."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import path as as_path
from winit_fast.base.arrays import Array
from winit_fast.checkpoint import expectation, provenance
from winit_fast.checkpoint.provenance import PLAN
from winit_fast.checkpoint.reader import Place, places
from winit_fast.checkpoint.repeats import (
    MAX_ROWS,
    MIN_ELEMENTS,
    equal_cuts,
    equal_rows,
    groups,
    row_hashes,
    same,
    whole,
)
from winit_fast.checkpoint.statistics import BINS, Moments, Statistics, counts, moments
from winit_fast.checkpoint.values import values

_UNIT = 1 << 23
"""Bytes that a thread reads each time it opens a file."""

_CHUNK = 1 << 20
"""Bytes that are processed at once: they and the intermediate results stay in the cache. NumPy
releases the GIL in every operation; operations on less data would mostly wait for it."""


@dataclass(frozen=True)
class Repeat:
    """Data that occurs more than once.

    Attributes
    ----------
    kind : str
        "tensors": tensors are equal. "rows": rows are equal to earlier rows of the same tensor.
        "pieces": pieces are equal when one axis is cut evenly.
    names : tuple of str
        The tensors.
    detail : str
    """

    kind: str
    names: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.

    Attributes
    ----------
    tensors : tuple of Statistics
        In the order of the files.
    repeats : tuple of Repeat
    plan : str
        The source of the expected deviations, or why there are none.
    nbytes : int
        Bytes of all tensors.
    seconds : float
    """

    tensors: tuple[Statistics, ...]
    repeats: tuple[Repeat, ...]
    plan: str
    nbytes: int
    seconds: float


def inspect(
    path: str | os.PathLike[str],
    *,
    histograms: bool = False,
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Compute statistics of a checkpoint, and find repeats.

    Any safetensors file is accepted. Repeats are equal tensors of the same dtype and shape, equal
    rows (along the first axis, of at most 2^22 rows) and equal pieces when any axis is cut evenly
    into 2 to 64. They have at least 16 elements, not all of one value. Each file is read once, but
    candidates for repeats are read a second time and compared.

    Parameters
    ----------
    path : path
        A checkpoint's directory, its index, or a file.
    histograms : bool
        Also compute a histogram of each tensor's elements.
    num_threads : int, optional
        By default `winit_fast.get_num_threads`.
    progress : callable, optional
        Called with the number of bytes read so far and the total.

    Returns
    -------
    Inspection

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint.
    ValueError
        If a file is damaged.

    Examples
    --------
    >>> import tempfile
    >>> import winit_fast as wf
    >>> from winit_fast.checkpoint import write_checkpoint
    >>> from winit_fast.models.tensor_spec import TensorSpec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     summary = write_checkpoint(folder, [TensorSpec("w", (64, 8), wf.HeNormal())], seed=3)
    ...     (found,) = inspect(folder).tensors
    >>> round(found.deviation, 3), round(found.expected, 3), found.zeros
    (0.181, 0.177, 0)
    """
    where = Path(as_path("path", path))
    count = threads.resolve(num_threads)
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be a function, got {progress!r}")
    begin = time.perf_counter()
    found = places(where)
    told, expected = _expected(where if where.is_dir() else where.parent, found)
    tensors = [_Tensor(name, place, bool(histograms)) for name, place in found.items()]
    total = sum(place.nbytes for place in found.values())
    caller, lock, done = threading.get_ident(), threading.Lock(), 0

    def work(unit: _Unit) -> None:
        nonlocal done
        unit.tensor.read(unit)
        with lock:
            done += unit.end - unit.begin
        if progress is not None and threading.get_ident() == caller:
            progress(done, total)

    threads.run(work, (unit for tensor in tensors for unit in tensor.units()), count)
    if progress is not None:
        progress(total, total)
    repeats = _equal_tensors(tensors)
    # these are reported once, with the first of the equal tensors
    known = {name for repeat in repeats for name in repeat.names[1:]}
    for tensor in tensors:
        repeats += tensor.repeats if tensor.name not in known else []
    return Inspection(
        tensors=tuple(tensor.statistics(expected.get(tensor.name)) for tensor in tensors),
        repeats=tuple(repeats),
        plan=told,
        nbytes=total,
        seconds=time.perf_counter() - begin,
    )


def _expected(folder: Path, found: Mapping[str, Place]) -> tuple[str, dict[str, float]]:
    """Compute the expected deviations from the plan, for tensors that have the planned shape."""
    if not (folder / PLAN).exists():
        return f"there is no {PLAN}", {}
    planned, digest = provenance.read_plan(folder / PLAN)
    named = {place.header.metadata.get(provenance.DIGEST_KEY, digest) for place in found.values()}
    if named - {digest}:
        return f"{PLAN} is not the plan whose digest is in the headers", {}
    expected = {}
    for tensor in planned:
        place = found.get(tensor.name)
        if place is not None and place.entry.shape == tensor.shape:
            moments = expectation.moments(tensor.scheme, tensor.shape)
            if moments is not None:
                expected[tensor.name] = moments[1]
    return PLAN, expected


class _Unit(NamedTuple):
    """A range of a tensor's bytes: whole rows, or a part of one row."""

    tensor: _Tensor
    number: int
    begin: int
    end: int


class _Tensor:
    """One tensor while several threads read it."""

    def __init__(self, name: str, place: Place, histograms: bool) -> None:
        self.name = name
        self.place = place
        self.repeats: list[Repeat] = []
        # hash of the tensor; None if equal tensors need not be reported
        self.hash: int | None = None
        size = math.prod(place.entry.shape)
        # Elements that are not whole bytes are hashed as bytes, without statistics.
        self._is_bytes = bool(size) and place.nbytes % size != 0
        self._itemsize = place.nbytes // size if size and not self._is_bytes else 1
        rows = place.entry.shape[0] if len(place.entry.shape) > 1 else 1
        if self._is_bytes or not size or rows > MAX_ROWS or size // rows < MIN_ELEMENTS:
            rows = 1
        self._row = place.nbytes // rows
        self._hashes: Array | None = np.zeros(rows, np.uint64)
        self._parts: dict[int, Moments] = {}
        self._moments = Moments()
        self._histogram = np.zeros(BINS, np.int64) if histograms else None
        self._sparse: dict[int, int] = {}
        self._lock = threading.Lock()
        self._left = sum(1 for _ in self.units())

    def units(self) -> Iterator[_Unit]:
        """Cut the tensor into the ranges that threads read."""
        step = max(1, _UNIT // self._row) * self._row if 0 < self._row <= _CHUNK else _UNIT
        per_row = self._row > _CHUNK
        number = 0
        for start in range(0, self.place.nbytes, self._row if per_row else step):
            stop = min(self.place.nbytes, start + (self._row if per_row else step))
            for begin in range(start, stop, step):
                yield _Unit(self, number, begin, min(stop, begin + step))
                number += 1

    def read(self, unit: _Unit) -> None:
        """Read a range of bytes; after the last range, finish the tensor."""
        step = max(1, _CHUNK // self._row) * self._row if self._row <= _CHUNK else _CHUNK
        memory = np.empty(min(step, unit.end - unit.begin), np.uint8)
        floats, mask = np.empty(memory.size, np.float64), np.empty(memory.size, np.bool_)
        found = Moments()
        histogram = None if self._histogram is None else np.zeros(BINS, np.int64)
        with self.place.opened() as read, np.errstate(all="ignore"):
            for begin in range(unit.begin, unit.end, step):
                data = memory[: unit.end - begin]
                read(begin, data)
                self._hash(data, begin)
                numbers = None if self._is_bytes else values(data, self.place.entry.tag, floats)
                if numbers is not None:
                    if histogram is not None:
                        histogram += counts(numbers)
                    found = found.joined(moments(numbers, mask))
        with self._lock:
            self._parts[unit.number] = found
            if self._histogram is not None and histogram is not None:
                self._histogram += histogram
            self._left -= 1
            is_whole = self._left == 0
        if is_whole:
            self._finish()

    def _hash(self, data: Array, begin: int) -> None:
        assert self._hashes is not None, "kept to the end"
        first, within = divmod(begin, self._row)
        rows = data.reshape(-1, min(self._row, data.size))
        hashes = row_hashes(rows, within)
        with self._lock:
            self._hashes[first : first + len(rows)] += hashes

    def _finish(self) -> None:
        """Combine the results of all ranges, and free the memory that they took."""
        # in a fixed order, so that the sums do not depend on the threads
        for number in sorted(self._parts):
            self._moments = self._moments.joined(self._parts[number])
        hashes, self._hashes, self._parts = self._hashes, None, {}
        assert hashes is not None, "kept to the end"
        if self._histogram is not None:
            bins = np.flatnonzero(self._histogram)
            self._sparse = dict(zip(bins.tolist(), self._histogram[bins].tolist(), strict=True))
            self._histogram = None
        size = math.prod(self.place.entry.shape)
        if size < MIN_ELEMENTS or self._is_constant():
            return
        (self.hash,) = row_hashes(hashes.view(np.uint8).reshape(1, -1)).tolist()
        if self._is_bytes:
            return
        cuts = equal_cuts(self.place, self._itemsize)
        explained = 0
        for cut in cuts:
            if cut.axis == 0:
                explained = (cut.parts - cut.distinct) * (hashes.size // cut.parts)
            self.repeats.append(
                Repeat(
                    "pieces",
                    (self.name,),
                    f"axis {cut.axis} cut into {cut.parts}: {cut.distinct} different "
                    f"piece{'s' * (cut.distinct > 1)}",
                )
            )
        rows = equal_rows(self.place, hashes, self._itemsize) if hashes.size > 1 else None
        if rows is not None and rows.number > explained:
            self.repeats.append(
                Repeat(
                    "rows",
                    (self.name,),
                    f"{rows.number:,} of {hashes.size:,} are equal to earlier ones: "
                    f"row {rows.first[0]} to row {rows.first[1]}, say",
                )
            )

    def _is_constant(self) -> bool:
        """Return whether all elements have one value."""
        if self._moments.size:
            low, high = self._moments.minimum, self._moments.maximum
            return low == high and not self._moments.not_finite
        return whole(self.place).is_constant(0, self._itemsize)

    def statistics(self, expected: float | None) -> Statistics:
        """Return the statistics."""
        _, shape, _, _ = self.place.entry
        found = self._moments
        is_known = not self._is_bytes and (found.size or found.not_finite or not math.prod(shape))
        has_numbers = bool(found.size)
        return Statistics(
            name=self.name,
            file=self.place.file,
            dtype=self.place.entry.tag,
            shape=shape,
            mean=found.mean if has_numbers else None,
            deviation=math.sqrt(found.squares / found.size) if has_numbers else None,
            minimum=found.minimum if has_numbers else None,
            maximum=found.maximum if has_numbers else None,
            zeros=found.zeros if is_known else None,
            not_finite=found.not_finite if is_known else None,
            expected=expected,
            histogram=self._sparse,
        )


def _equal_tensors(tensors: Sequence[_Tensor]) -> list[Repeat]:
    """Find tensors that are equal."""
    told = [tensor for tensor in tensors if tensor.hash is not None]
    keys = [(t.hash, t.place.entry.tag, t.place.entry.shape) for t in told]
    found = []
    for group in groups(keys):
        left = [told[at] for at in group]
        while len(left) > 1:
            first, *others = left
            equal = [other for other in others if same(first.place, other.place)]
            if equal:
                found.append(Repeat("tensors", (first.name, *(t.name for t in equal)), "equal"))
            left = [other for other in others if other not in equal]
    return found
