"""Making Dask arrays, with one task for each chunk."""

from functools import partial
from typing import Any

import dask.array
import numpy as np

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Shape, logical_shape
from winit_fast.base.dtypes import find
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.streams.identity import Seed, seed_number


def from_initializer(
    initializer: Initializer | str,
    shape: Shape,
    chunks: Any = "auto",
    dtype: Any = "float32",
    *,
    seed: Seed = None,
    name: str | int | None = None,
) -> dask.array.Array:
    """Make a lazy array, whose chunks are generated independently by the workers that need them.

    Parameters
    ----------
    initializer : Initializer or str
        An initializer, or its name: see `winit_fast.get`.
    shape : int or tuple of int
        Shape of the whole array.
    chunks : int, tuple, dict or str
        As in `dask.array.zeros`. Chunks change no value. (The chunks of an orthogonal matrix may
        agree with the whole only to rounding: see `winit_fast.Orthogonal`.)
    dtype : str, type or numpy.dtype
        A floating-point type of docs/contract.md.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        See `winit_fast.Stream`. None takes one seed from the operating system for the whole array.
    name : str, int or None
        The tensor's name, or its stream id.

    Returns
    -------
    dask.array.Array
        Each chunk is filled by one thread, because Dask runs chunks in parallel.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> w = from_initializer("he_normal", (4096, 1024), chunks=(1000, 1000), seed=0, name="mlp.up")
    >>> part = w[990:1010, 5].compute()
    >>> bool((part == wf.HeNormal()((4096, 1024), seed=0, name="mlp.up")[990:1010, 5]).all())
    True
    """
    tensor, kind, found = logical_shape(shape), find(dtype).dtype, get(initializer)
    key = seed_number(seed)
    # Filling an empty box checks the arguments now, so that no worker raises the error later.
    found(tensor, seed=key, name=name, dtype=kind, index=(slice(0, 0),) * len(tensor))
    cut = dask.array.core.normalize_chunks(chunks, tensor, dtype=kind)
    made: dask.array.Array = dask.array.map_blocks(
        partial(_chunk, found, tensor, kind, key, name),
        chunks=cut,
        dtype=kind,
        meta=np.empty((0,) * len(tensor), kind),
        name=f"{type(found).__name__}-" + dask.base.tokenize(found, tensor, kind, key, name, cut),
    )
    return made


def _chunk(
    initializer: Initializer,
    tensor: tuple[int, ...],
    kind: np.dtype[Any],
    seed: int,
    name: str | int | None,
    block_info: dict[Any, Any],
) -> Array:
    index = tuple(slice(*ends) for ends in block_info[None]["array-location"])
    return initializer(tensor, seed=seed, name=name, dtype=kind, index=index, num_threads=1)
