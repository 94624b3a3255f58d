"""Convolution kernels whose output equals their input."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from winit_fast.base.arguments import finite, integer, optional, positive
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.initializers.fans import convolution_axes
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.fill import constant, rounded
from winit_fast.streams.stream import Stream


@dataclass(frozen=True, repr=False)
class Dirac(Initializer, names=("dirac",)):
    """A convolution kernel that copies its input channels to its output channels.

    For kernels of one to three spatial axes.

    Parameters
    ----------
    groups : int
        Groups of the convolution, at least 1; must divide the number of outputs. Each group copies
        its own inputs.
    gain : float
        The value of the nonzero elements.
    in_axis, out_axis : int
        The axis of the inputs of one group and that of all outputs; the other axes are spatial. By
        default -2 and -1, as in JAX and Keras; for torch's tensors 1 and 0.

    Notes
    -----
    If a group has n outputs, output o has the gain at input o mod n (if it exists), at the centre
    tap: index k // 2 of an axis with k taps, as in ``torch.nn.init.dirac_``. For an even k this is
    the tap after the one that `DeltaOrthogonal` and JAX use.

    References
    ----------
    ``torch.nn.init.dirac_``.

    Examples
    --------
    >>> Dirac()((3, 2, 2))[1]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    >>> Dirac(groups=2)((1, 1, 4))
    array([[[1., 0., 1., 0.]]], dtype=float32)
    """

    groups: int = 1
    gain: float = 1.0
    in_axis: int | None = None
    out_axis: int | None = None

    def __post_init__(self) -> None:
        self._parse(positive, "groups")
        self._parse(finite, "gain")
        self._parse(optional(integer), "in_axis", "out_axis")

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse a shape that is not a convolution's, and a dtype whose range the gain exceeds."""
        _, fan_out = convolution_axes("Dirac", shape, self.in_axis, self.out_axis)
        if shape[fan_out] % self.groups:
            raise ValueError(
                f"groups must divide the number of outputs, got groups={self.groups} and "
                f"{shape[fan_out]} outputs in shape {shape}"
            )
        rounded(self.gain, dtype, "gain")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Set every element to 0, and then those that copy an input to the gain."""
        shape = box.tensor
        fan_in, fan_out = convolution_axes("Dirac", shape, self.in_axis, self.out_axis)
        gain = rounded(self.gain, out.dtype, "gain")
        constant(0.0, out, box, num_threads)

        outputs = np.arange(box.starts[fan_out], box.starts[fan_out] + box.sizes[fan_out])
        inputs = outputs % max(1, shape[fan_out] // self.groups)
        first, end = box.starts[fan_in], box.starts[fan_in] + box.sizes[fan_in]
        inside = (first <= inputs) & (inputs < end)
        at: list[Array | int] = []
        for axis, (start, size) in enumerate(zip(box.starts, box.sizes, strict=True)):
            if axis == fan_in:
                at.append(inputs[inside] - start)
            elif axis == fan_out:
                at.append(outputs[inside] - start)
            elif start <= shape[axis] // 2 < start + size:
                at.append(shape[axis] // 2 - start)
            else:
                return
        box.expand(out)[tuple(at)] = gain

    def scaled(self, factor: float) -> Initializer:
        return replace(self, gain=factor * self.gain)
