"""Schemes that are scaled by a formula of a network's depth and width."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from winit_fast.base import threads
from winit_fast.base.arguments import finite, plain
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts
from winit_fast.base.dtypes import working
from winit_fast.base.formulas import Number, evaluate
from winit_fast.initializers.protocol import Filler, Initializer
from winit_fast.initializers.registry import get
from winit_fast.streams.stream import Stream

_CUT = 1 << 17
"""Elements scaled at one time, few enough to stay in the cache."""


@dataclass(frozen=True, repr=False)
class Scaled(Initializer, names=("scaled",)):
    """Another scheme times a factor, which may be a formula of the network's depth or width.

    Parameters
    ----------
    initializer : Initializer, str or mapping
        The scheme to scale, in any form that `winit_fast.get` accepts.
    factor : float or str
        Finite, more than 0. A str is a formula of numbers and names with ``+ - * / // **``,
        parentheses, ``sqrt``, ``log``, ``min`` and ``max``.
    numbers : mapping of str to (int or float)
        The values of the names in the formula.

    Attributes
    ----------
    value : float
        The value of the factor.

    Notes
    -----
    If the scheme has a scale parameter, the factor multiplies that parameter (in variance scaling,
    its square multiplies the variance). So the bits are those of the scheme with that parameter:
    ``Scaled(RandomNormal(0, 0.02), 0.5)`` has the bits of ``RandomNormal(0, 0.01)``. The elements
    of other schemes (`STFT`, `Pretrained`) are multiplied in the working type.

    ============================ ===================================== ============================
    factor                       of                                    from
    ============================ ===================================== ============================
    ``1 / sqrt(2 * L)``          output layers of L residual blocks    Radford et al. 2019, GPT-2
    ``1 / sqrt(2 * (i + 1))``    those of block i                      torchtitan, OLMo-core
    ``(8 * N) ** -(1 / 4)``      a decoder of N layers                 Wang et al. 2022, DeepNet
    ``0.67 * N ** -(1 / 4)``     an encoder of N layers                Huang et al. 2020, T-Fixup
    ``L ** -(1 / 2)``            first layers of L residual branches   Zhang et al. 2019, Fixup
    ``width_mult ** -(1 / 2)``   hidden layers of a wider network      Yang et al. 2022, muP
    ============================ ===================================== ============================

    Examples
    --------
    >>> import winit_fast as wf
    >>> scheme = wf.Scaled(wf.RandomNormal(0, 0.02), "1 / sqrt(2 * L)", {"L": 32})
    >>> scheme.value
    0.125
    >>> w, same = (s((4, 4), seed=0, name="c_proj") for s in (scheme, wf.RandomNormal(0, 0.0025)))
    >>> bool((w == same).all())
    True
    """

    initializer: Initializer | str | Mapping[str, Any]
    factor: float | str = 1.0
    numbers: Mapping[str, Number] | Iterable[tuple[str, Number]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "initializer", get(self.initializer))
        try:
            pairs = dict(self.numbers)
            for name, number in pairs.items():
                if not isinstance(name, str):
                    raise TypeError
                finite("numbers", number)
        except (TypeError, ValueError):
            raise TypeError(
                f"numbers must be a mapping of names to finite numbers, got {self.numbers!r}"
            ) from None
        numbers = sorted((name, plain(number)) for name, number in pairs.items())
        object.__setattr__(self, "numbers", tuple(numbers))
        if not self.value > 0:
            raise ValueError(f"factor must be more than 0, got {self._shown()}")

    def _shown(self) -> str:
        return f"{self.factor!r} with {dict(self.numbers)}" if self.numbers else f"{self.factor!r}"

    @property
    def value(self) -> float:
        """The value of the factor."""
        try:
            result = evaluate(self.factor, dict(self.numbers))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ValueError(f"factor cannot be computed, got {self._shown()}: {error}") from None
        return finite("factor", result)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"numbers": dict(self.numbers)}

    @property
    def _direct(self) -> Initializer | None:
        """The scheme with its scale parameter multiplied, or None if it has none."""
        return get(self.initializer).scaled(self.value)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses for the dtype in which its elements are drawn."""
        if self._direct is not None:
            self._direct.check(shape, dtype)
        else:
            get(self.initializer).check(shape, working(dtype))

    def check_box(self, box: Box, dtype: np.dtype[Any]) -> None:
        """Refuse what the scheme refuses."""
        if self._direct is not None:
            self._direct.check_box(box, dtype)
        else:
            get(self.initializer).check_box(box, working(dtype))

    def complex_parts(self, shape: tuple[int, ...]) -> Initializer:
        """Return the parts of the scheme with its scale parameter multiplied."""
        if self._direct is None:
            return super().complex_parts(shape)
        return self._direct.complex_parts(shape)

    def scaled(self, factor: float) -> Initializer:
        """Return the same scheme with the product of both factors."""
        return Scaled(self.initializer, factor * self.value)

    def prepared(self, shape: tuple[int, ...], dtype: np.dtype[Any], stream: Stream) -> Filler:
        """Prepare the scheme with its scale parameter multiplied, if it has one."""
        if self._direct is None:
            return super().prepared(shape, dtype, stream)
        return self._direct.prepared(shape, dtype, stream)

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Fill with the scale parameter multiplied if there is one, else multiply the elements."""
        if self._direct is not None:
            self._direct.fill_box(out, box, stream, num_threads)
            return
        initializer, factor = get(self.initializer), self.value
        whole = box.expand(out)

        def work(cut: tuple[slice, ...]) -> None:
            own = box.cut(cut)
            values = np.empty(own.sizes, working(out.dtype))
            initializer.fill_box(values, own, stream, 1)
            with np.errstate(over="ignore"):  # too large a product is infinite, as for normals
                whole[cut] = values * factor

        if out.size:
            threads.run(work, cuts(box.sizes, _CUT), threads.resolve(num_threads))
