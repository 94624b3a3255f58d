"""Finds repeats in a checkpoint, which indicate that a seed was used twice.

Candidates among rows and whole tensors are found by hashes, computed while a tensor is read.
Candidates among pieces are found by samples of their bytes. All candidates are then compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from winit_fast.base.arrays import Array
from winit_fast.checkpoint.reader import Place

MIN_ELEMENTS = 16
"""Fewest elements of a repeat: shorter data may be equal by chance."""

MAX_ROWS = 1 << 22
"""Most rows of a tensor in which repeats are searched: the hashes of all rows are kept."""

PARTS = range(2, 65)
"""The numbers of pieces into which an axis is cut."""

_BLOCK = 1 << 12
"""Words in a block. Each block is multiplied by the same table of weights, which stays in the
cache."""

_CHUNK = 1 << 20
_SAMPLE = 256


def row_hashes(rows: Array, begin: int = 0) -> Array:
    """Hash rows of bytes, or the same part of every row; the hashes of parts add up.

    The hash is the sum of all words times weights that depend on their positions, modulo 2^64. It
    is computed at the speed of memory.

    Parameters
    ----------
    rows : numpy.ndarray of uint8
        Two axes, contiguous.
    begin : int
        Offset of the part from the start of its row in bytes, a multiple of 2^15.

    Returns
    -------
    numpy.ndarray of uint64

    Examples
    --------
    >>> a, b, _ = row_hashes(np.array([[1, 2], [1, 2], [2, 1]], np.uint8)).tolist()
    >>> a == b
    True
    """
    count, nbytes = rows.shape
    words = nbytes // 8
    if nbytes % 8:
        flat = rows.reshape(-1)[: rows.size // 8 * 8].view(np.uint64)
        body = np.lib.stride_tricks.as_strided(flat, (count, words), (nbytes, 8))
    else:
        body = rows.view(np.uint64)
    first = begin // 8 // _BLOCK
    if words <= _BLOCK:
        sums = np.einsum("ij,j->i", body, _weights()[:words]) * _of_block(first)
    else:
        sums = np.zeros(count, np.uint64)
        whole = words // _BLOCK if count == 1 else 0
        if whole:  # all blocks at once
            weights = np.concatenate([_of_block(first + number) for number in range(whole)])
            blocks = body[0, : whole * _BLOCK].reshape(whole, _BLOCK)
            sums += (np.einsum("ij,j->i", blocks, _weights()) * weights).sum()
        for start in range(whole * _BLOCK, words, _BLOCK):
            part = body[:, start : start + _BLOCK]
            weights = _of_block(first + start // _BLOCK)
            sums += np.einsum("ij,j->i", part, _weights()[: part.shape[1]]) * weights
    if nbytes % 8:
        tail = np.zeros((count, 8), np.uint8)
        tail[:, : nbytes % 8] = rows[:, words * 8 :]
        sums += tail.view(np.uint64)[:, 0] * _of_block(-1 - first - words // _BLOCK)
    return np.asarray(sums)


@cache
def _weights() -> Array:
    """Return the odd weights of a block's words. Making them imports numpy.random."""
    weights = np.random.default_rng(2**32 - 5).integers(1 << 63, size=_BLOCK, dtype=np.uint64)
    return weights | np.uint64(1)


@lru_cache(maxsize=1 << 12)
def _of_block(number: int) -> Array:
    """Return the weight of a block: SplitMix64's output, made odd."""
    z = number * 0x9E3779B97F4A7C15 % (1 << 64)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return np.array([z ^ (z >> 31) | 1], np.uint64)


class Rows(NamedTuple):
    """Rows of a tensor that are equal to earlier ones.

    Attributes
    ----------
    number : int
        Number of these rows.
    first : tuple of int
        The first such row, and the earlier row that equals it.
    """

    number: int
    first: tuple[int, int]


class Cut(NamedTuple):
    """An even cut of an axis in which some pieces are equal.

    Attributes
    ----------
    axis : int
    parts : int
        Number of pieces.
    distinct : int
        Number of different pieces.
    """

    axis: int
    parts: int
    distinct: int


class Pieces(NamedTuple):
    """A tensor viewed as `outer` rows, of which each is divided into `parts` pieces.

    Attributes
    ----------
    place : Place
    outer, parts : int
    nbytes : int
        Bytes of a piece in one row.
    """

    place: Place
    outer: int
    parts: int
    nbytes: int

    def steps(self) -> Iterator[Callable[[int], Array]]:
        """Step through all pieces together: yield functions that read a part of a given piece."""
        row = self.parts * self.nbytes
        with self.place.opened() as read:
            if self.outer == 1 or self.nbytes >= _CHUNK // 16:
                for number in range(self.outer):
                    for begin in range(0, self.nbytes, _CHUNK):
                        at, size = number * row + begin, min(_CHUNK, self.nbytes - begin)

                        def alone(piece: int, at: int = at, size: int = size) -> Array:
                            memory = np.empty(size, np.uint8)
                            read(at + piece * self.nbytes, memory)
                            return memory

                        yield alone
                return
            step = max(1, _CHUNK // row)
            for number in range(0, self.outer, step):
                memory = np.empty(min(step, self.outer - number) * row, np.uint8)
                read(number * row, memory)
                rows = memory.reshape(-1, self.parts, self.nbytes)

                def among(piece: int, rows: Array = rows) -> Array:
                    return np.ascontiguousarray(rows[:, piece]).reshape(-1)

                yield among

    def is_constant(self, piece: int, itemsize: int) -> bool:
        """Return whether all elements of a piece are the same."""
        first = None
        for part in self.steps():
            items = part(piece).reshape(-1, itemsize)
            first = items[:1] if first is None else first
            if not (items == first).all():
                return False
        return True

    def equal(self, candidates: Iterable[Sequence[int]]) -> list[list[int]]:
        """Compare candidates, and return groups of equal pieces.

        Parameters
        ----------
        candidates : iterable of sequence of int
            Groups of pieces that may be equal.

        Returns
        -------
        list of list of int
            Groups of two or more equal pieces, each in ascending order.
        """
        found, left = [], [[*group] for group in candidates]
        while left := [group for group in left if len(group) > 1]:
            alive = [group[1:] for group in left]
            for part in self.steps():
                for group, others in zip(left, alive, strict=True):
                    if others:
                        first = part(group[0])
                        others[:] = [each for each in others if np.array_equal(part(each), first)]
                if not any(alive):
                    break
            found += [[group[0], *others] for group, others in zip(left, alive, strict=True)]
            left = [
                [each for each in group[1:] if each not in {*others}]
                for group, others in zip(left, alive, strict=True)
            ]
        return sorted(group for group in found if len(group) > 1)


def whole(place: Place) -> Pieces:
    """View a whole tensor as one piece."""
    return Pieces(place, 1, 1, place.nbytes)


def same(one: Place, other: Place) -> bool:
    """Return whether two tensors with the same number of bytes are equal."""
    pairs = zip(whole(one).steps(), whole(other).steps(), strict=True)
    return all(np.array_equal(a(0), b(0)) for a, b in pairs)


def groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """Group the positions of keys that occur more than once.

    Examples
    --------
    >>> groups("abcab")
    [[0, 3], [1, 4]]
    """
    positions = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    return [group for group in positions.values() if len(group) > 1]


def equal_rows(place: Place, hashes: Array, itemsize: int) -> Rows | None:
    """Find rows that are equal to earlier ones; rows with only one value do not count.

    Parameters
    ----------
    place : Place
    hashes : numpy.ndarray of uint64
        The hash of each row of the tensor.
    itemsize : int
        Bytes of an element.
    """
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not twice.size:
        return None
    which = np.flatnonzero(np.isin(hashes, twice))
    rows = Pieces(place, 1, hashes.size, place.nbytes // hashes.size)
    candidates = [[int(which[at]) for at in group] for group in groups(hashes[which].tolist())]
    varied = (group for group in candidates if not rows.is_constant(group[0], itemsize))
    found = rows.equal(varied)
    if not found:
        return None
    number = sum(len(group) - 1 for group in found)
    return Rows(number, min((group[1], group[0]) for group in found))


def equal_cuts(place: Place, itemsize: int) -> list[Cut]:
    """Find axes of which an even cut has equal pieces; pieces with only one value do not count.

    For each axis, only the cut with the fewest different pieces is returned; of several such cuts,
    the one with the most pieces.

    Parameters
    ----------
    place : Place
    itemsize : int
        Bytes of an element.
    """
    found, outer, shape = [], 1, place.entry.shape
    for axis, extent in enumerate(shape):
        row = place.nbytes // outer
        parts = [
            count
            for count in PARTS
            if extent % count == 0 and place.nbytes // itemsize // count >= MIN_ELEMENTS
        ]
        if parts:
            cuts = _equal_cuts(place, axis, outer, row, parts, itemsize)
            found += sorted(cuts, key=lambda cut: (cut.distinct, -cut.parts))[:1]
        outer *= extent
    return found


def _equal_cuts(
    place: Place, axis: int, outer: int, row: int, parts: Sequence[int], itemsize: int
) -> Iterator[Cut]:
    """Find all cuts of an axis with equal pieces; coarse cuts are derived from finer ones."""
    samples = _samples(place, outer, row, parts)
    for fine in parts:
        if any(other % fine == 0 for other in parts if other > fine):
            continue
        pieces = Pieces(place, outer, fine, row // fine)
        label = list(range(fine))
        found = pieces.equal(groups(samples[fine]))
        if not found:
            continue
        for group in found:
            for piece in group:
                label[piece] = group[0]
        for count in parts:
            if fine % count == 0:
                step = fine // count
                labels = [tuple(label[at : at + step]) for at in range(0, fine, step)]
                coarse = Pieces(place, outer, count, row // count)
                distinct = len({*labels})
                for group in groups(labels):
                    if coarse.is_constant(group[0], itemsize):
                        distinct += len(group) - 1
                if distinct < count:
                    yield Cut(axis, count, distinct)


def _samples(place: Place, outer: int, row: int, parts: Sequence[int]) -> dict[int, list[bytes]]:
    """Read the first bytes of every piece of every cut."""
    with place.opened() as read:
        if row <= 1 << 16:
            count = min(outer, -(-_SAMPLE // (row // max(parts))))
            head = np.empty(count * row, np.uint8)
            read(0, head)
            return {
                part: [
                    rows.tobytes()
                    for rows in head.reshape(count, part, -1)[:, :, :_SAMPLE].swapaxes(0, 1)
                ]
                for part in parts
            }
        first, memory = {}, np.empty(_SAMPLE, np.uint8)
        for start in sorted({piece * (row // part) for part in parts for piece in range(part)}):
            read(start, memory)
            first[start] = memory.tobytes()
    return {part: [first[piece * (row // part)] for piece in range(part)] for part in parts}
