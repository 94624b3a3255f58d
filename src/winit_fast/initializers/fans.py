"""The fans of a logical tensor's shape, and the axes that they are computed from."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from winit_fast.base.arguments import integer
from winit_fast.base.boxes import Shape, logical_shape

Axes = int | Sequence[int]


class Convention(NamedTuple):
    """Which axes of a layer's weight are inputs and outputs in a framework.

    Attributes
    ----------
    in_axis, out_axis : int
    column_axis : int
        The axis whose positions are the columns of an orthogonal matrix.
    """

    in_axis: int
    out_axis: int
    column_axis: int


JAX = Convention(in_axis=-2, out_axis=-1, column_axis=-1)
"""(*kernel, in, out): the convention of JAX and Keras, and the default of this package."""

TORCH = Convention(in_axis=1, out_axis=0, column_axis=0)
"""(out, in, *kernel): the convention of torch."""


def without_batch(axis: int, batch_axis: Axes, ndim: int) -> int:
    """Convert an axis that is counted without the batch axes to one counted with them.

    Parameters
    ----------
    axis : int
        Position among the axes that are not batch axes.
    batch_axis : int or sequence of int
    ndim : int

    Returns
    -------
    int
        Position among all axes; ``axis`` itself if there are no batch axes, or too few others.

    Examples
    --------
    >>> without_batch(1, 0, 3), without_batch(-1, -1, 3), without_batch(-2, (), 2)
    (2, 1, -2)
    """
    batch = {number % ndim for number in axes_tuple("batch_axis", batch_axis)} if ndim else set()
    others = [number for number in range(ndim) if number not in batch]
    if not batch or not -len(others) <= axis < len(others):
        return axis
    return others[axis]


def axes_tuple(argument: str, axes: Axes) -> tuple[int, ...]:
    """Convert one axis or several to a tuple; errors name the argument.

    Examples
    --------
    >>> axes_tuple("in_axis", -2), axes_tuple("in_axis", [0, 1])
    ((-2,), (0, 1))
    """
    if isinstance(axes, Sequence):
        return tuple(integer(argument, axis) for axis in axes)
    return (integer(argument, axes),)


def hashable_axes(argument: str, axes: Axes) -> int | tuple[int, ...]:
    """Convert one axis or several, which JSON has as a list, to a hashable value.

    Examples
    --------
    >>> hashable_axes("in_axis", -2), hashable_axes("in_axis", [0, 1])
    (-2, (0, 1))
    """
    if isinstance(axes, Sequence) and not isinstance(axes, (str, bytes)):
        return axes_tuple(argument, axes)
    return integer(argument, axes, "an int or a sequence of them")


def positions(argument: str, axes: Axes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Convert axes to increasing numbers from 0, and check that they exist and are different.

    Examples
    --------
    >>> positions("in_axis", (-2, 0), (3, 3, 64, 128))
    (0, 2)
    """
    named = axes_tuple(argument, axes)
    for axis in named:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"{argument} is {axes!r}, but shape {shape} has {len(shape)} axes")
    result = tuple(sorted(axis % len(shape) for axis in named))
    if len(set(result)) < len(result):
        raise ValueError(f"{argument} must be different axes, got {axes!r} for shape {shape}")
    return result


def convolution_axes(
    scheme: str, shape: tuple[int, ...], in_axis: int | None, out_axis: int | None
) -> tuple[int, int]:
    """Convert the axes of a convolution's inputs and outputs to numbers from 0; check the shape.

    Raises
    ------
    ValueError
        If the shape is not that of a convolution, or the axes are not two different axes of it.

    Examples
    --------
    >>> convolution_axes("Dirac", (3, 3, 64, 128), -2, -1)
    (2, 3)
    """
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"{scheme} is for convolutions of one to three spatial axes, that is, tensors of three "
            f"to five axes, got shape {shape}"
        )
    in_axis = JAX.in_axis if in_axis is None else in_axis
    out_axis = JAX.out_axis if out_axis is None else out_axis
    (inputs,) = positions("in_axis", in_axis, shape)
    (outputs,) = positions("out_axis", out_axis, shape)
    if inputs == outputs:
        raise ValueError(
            f"in_axis and out_axis must be different axes, got {in_axis!r} and {out_axis!r} "
            f"for shape {shape}"
        )
    return inputs, outputs


def fans(
    shape: Shape,
    in_axis: Axes | None = None,
    out_axis: Axes | None = None,
    batch_axis: Axes = (),
) -> tuple[int, int]:
    r"""Compute fan-in and fan-out: the number of connections into and out of one unit of a layer.

    Parameters
    ----------
    shape : int or tuple of int
        The logical shape: that of the whole tensor, never of a shard of it.
    in_axis, out_axis : int or sequence of int, optional
        The axes of the layer's inputs and outputs. By default -2 and -1, as in JAX and Keras,
        counted without the batch axes.
    batch_axis : int or sequence of int
        Axes along which the tensors are independent.

    Returns
    -------
    fan_in, fan_out : int

    Raises
    ------
    ValueError
        If an axis does not exist or is given twice, or the tensor has no fans.
    TypeError
        If the shape or an axis contains anything other than integers.

    Notes
    -----
    The remaining axes are the receptive field (a convolution's kernel), and

    .. math:: \text{fan} = \text{size of its own axes} \times \text{size of the receptive field}.

    Both fans of a tensor with one axis are its number of elements, as in Keras, provided that the
    axes are not given, or are given as -2 and -1.

    References
    ----------
    ``jax.nn.initializers.variance_scaling`` has the same axes.

    Examples
    --------
    >>> fans((784, 256))
    (784, 256)
    >>> fans((3, 3, 64, 128))  # kernel, in, out: Keras and JAX
    (576, 1152)
    >>> fans((128, 64, 3, 3), in_axis=1, out_axis=0)  # torch
    (576, 1152)
    >>> fans((256,))
    (256, 256)
    """
    shape = logical_shape(shape)
    if in_axis is None:
        in_axis = without_batch(JAX.in_axis, batch_axis, len(shape))
    if out_axis is None:
        out_axis = without_batch(JAX.out_axis, batch_axis, len(shape))
    arguments = {"in_axis": in_axis, "out_axis": out_axis, "batch_axis": batch_axis}
    tuples = {argument: axes_tuple(argument, axes) for argument, axes in arguments.items()}
    if len(shape) == 1 and (tuples["in_axis"], tuples["out_axis"]) == ((-2,), (-1,)):
        return shape[0], shape[0]
    named: set[int] = set()
    sizes = []
    for argument, axes in arguments.items():
        size = 1
        for axis in tuples[argument]:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"{argument} is {axes!r}, but shape {shape} has {len(shape)} axes; "
                    "give fan_in= and fan_out=, or another scheme"
                )
            position = axis % len(shape)
            if position in named:
                raise ValueError(
                    "in_axis, out_axis and batch_axis must be different axes, got "
                    f"{in_axis!r}, {out_axis!r} and {batch_axis!r} for shape {shape}"
                )
            named.add(position)
            size *= shape[position]
        sizes.append(size)
    receptive_field = math.prod(size for axis, size in enumerate(shape) if axis not in named)
    return sizes[0] * receptive_field, sizes[1] * receptive_field
