"""A scheme that is drawn in one type and stored in another."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base import dtypes, threads
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.streams.stream import Stream

_CUT = 1 << 17
"""Elements drawn at a time: they stay in the cache."""


@dataclass(frozen=True, repr=False)
class Rounded(Initializer):
    """Another scheme's elements in the type ``drawn_in``, rounded to the destination's.

    What a cast does after the draw: a uniform of float32 that is rounded to bfloat16 may reach its
    upper bound, one of float64 that is rounded to float32 has other numbers.

    Examples
    --------
    >>> import winit_fast as wf
    >>> wide = wf.RandomUniform(0.0, 1.0)
    >>> narrow = Rounded(wide, "float64")(4, seed=0)
    >>> bool((narrow == wide(4, seed=0, dtype="float64").astype("float32")).all())
    True
    """

    initializer: Initializer
    drawn_in: str

    def _kind(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtypes.find(self.drawn_in).dtype if dtype in dtypes.FLOATS else dtype

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses in the type that it is drawn in."""
        self.initializer.check(shape, self._kind(dtype))

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses."""
        self.initializer.check_box(box, self._kind(dtype))

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Draw piece by piece, and round."""
        expanded, kind = box.expand(out), self._kind(out.dtype)

        def work(cut: tuple[slice, ...]) -> None:
            own = box.cut(cut)
            values = np.empty(own.sizes, kind)
            self.initializer.fill_box(values, own, stream, 1)
            with np.errstate(over="ignore"):
                expanded[cut] = dtypes.converted(values, out.dtype)

        if not out.size:
            return
        # its boxes may have other bits if they are cut
        if not isinstance(self.initializer, Elementwise):
            values = np.empty(box.sizes, kind)
            own = box.cut(tuple(slice(0, size) for size in box.sizes))
            self.initializer.fill_box(values, own, stream, num_threads)
            expanded[...] = dtypes.converted(values, out.dtype)
        else:
            threads.run(work, cuts(box.sizes, _CUT), threads.resolve(num_threads))
