"""The kernel of a short-time Fourier transform, and its window functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from winit_fast.base.arguments import finite, optional
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.base.dtypes import working
from winit_fast.base.names import one_of
from winit_fast.initializers.protocol import Initializer
from winit_fast.streams.fill import rounded
from winit_fast.streams.stream import Stream


def _cosines(*terms: float) -> Callable[[int], Array]:
    """Return a sum of cosines of 0, 1, 2 ... periods, with alternating signs."""

    def window(size: int) -> Array:
        turn = np.linspace(-math.pi, math.pi, size)
        return np.asarray(sum(term * np.cos(k * turn) for k, term in enumerate(terms)))

    return window


def _centred(size: int) -> Array:
    """Return positions relative to the middle."""
    return np.arange(size) - (size - 1) / 2


def _parzen(size: int) -> Array:
    r = abs(_centred(size)) / (size / 2)
    return np.where(abs(_centred(size)) <= (size - 1) / 4, 1 - 6 * r**2 * (1 - r), 2 * (1 - r) ** 3)


def _bohman(size: int) -> Array:
    r = abs(np.linspace(-1, 1, size))
    window = (1 - r) * np.cos(math.pi * r) + np.sin(math.pi * r) / math.pi
    window[[0, -1]] = 0
    return window


def _barthann(size: int) -> Array:
    r = abs(np.arange(size) / (size - 1) - 0.5)
    return 0.62 - 0.48 * r + 0.38 * np.cos(2 * math.pi * r)


def _tukey(size: int) -> Array:
    edge = 0.25 * (size - 1)  # half of the window is tapered, a quarter of it at each end
    inside = np.minimum(np.arange(size), np.arange(size)[::-1])
    return np.where(inside <= math.floor(edge), (1 - np.cos(math.pi * inside / edge)) / 2, 1.0)


def _taylor(size: int) -> Array:
    """Taylor window: four side lobes of nearly constant level, 30 dB below the main lobe."""
    a = math.acosh(10 ** (30 / 20)) / math.pi
    squares = 16 / (a**2 + 3.5**2) * (a**2 + (np.arange(1, 4) - 0.5) ** 2)
    phase = 2 * math.pi * _centred(size) / size
    window, peak = np.ones(size), 1.0
    for m in (1, 2, 3):
        others = [j for j in (1, 2, 3) if j != m]
        f = -((-1) ** m) * np.prod(1 - m**2 / squares) / 2
        f /= math.prod(1 - m**2 / j**2 for j in others)
        window += 2 * f * np.cos(m * phase)
        peak += 2 * float(f)
    return window / peak


_WINDOWS: dict[str, Callable[[int], Array]] = {
    "boxcar": np.ones,
    "triang": lambda size: 1 - abs(_centred(size)) * 2 / (size + size % 2),
    "bartlett": np.bartlett,
    "hann": _cosines(0.5, 0.5),
    "hamming": _cosines(0.54, 0.46),
    "blackman": _cosines(0.42, 0.5, 0.08),
    "nuttall": _cosines(0.3635819, 0.4891775, 0.1365995, 0.0106411),
    "blackmanharris": _cosines(0.35875, 0.48829, 0.14128, 0.01168),
    "flattop": _cosines(0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368),
    "parzen": _parzen,
    "bohman": _bohman,
    "barthann": _barthann,
    "cosine": lambda size: np.sin(math.pi / size * (np.arange(size) + 0.5)),
    "exponential": lambda size: np.exp(-abs(_centred(size))),
    "tukey": _tukey,
    "taylor": _taylor,
    "lanczos": lambda size: np.sinc(np.linspace(-1, 1, size)),
}


def window_values(name: str, size: int, periodic: bool) -> Array:
    """Sample a window function.

    Parameters
    ----------
    name : str
        A window of ``scipy.signal.windows`` that needs no parameter.
    size : int
    periodic : bool
        Whether the window is one period of a periodic function; otherwise it is symmetric.

    Returns
    -------
    numpy.ndarray
        float64.

    References
    ----------
    Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform",
    Proceedings of the IEEE 66, 1978.

    Examples
    --------
    >>> window_values("hann", 4, periodic=True).round(3)
    array([0. , 0.5, 1. , 0.5])
    """
    if size <= 1:
        return np.ones(size)
    return _WINDOWS[name](size + periodic)[:size]


_SIDES = {"real": 0, "imag": 1}  # quarter turns that turn the cosine into minus the sine
_SCALINGS: dict[str, Callable[[Array], float]] = {
    "density": lambda window: math.sqrt(np.square(window).sum()),
    "spectrum": lambda window: float(abs(window).sum()),
}
_CUT = 1 << 17
"""Elements computed at one time, so that temporaries stay in the cache."""


@dataclass(frozen=True, repr=False)
class STFT(Initializer, names=("stft", "stft_initializer")):
    r"""The kernel of a convolution that computes a short-time Fourier transform, as in Keras.

    For kernels of shape (frame length T, 1, number of bins F). The length of the transform is
    2 (F - 1).

    Parameters
    ----------
    side : str
        "real" or "imag": the part of the complex result that the convolution computes.
    window : str, sequence of float, or None
        A window of ``scipy.signal.windows`` that needs no parameter, "hann" for example; the T
        values of one; or no window.
    scaling : str or None
        "density" divides the window by its L2 norm, "spectrum" by its L1 norm, None does not
        divide.
    periodic : bool
        Whether a named window is periodic or symmetric.

    Notes
    -----
    With the window w and its divisor c, the element of time t and bin k is

    .. math:: \frac{w_t}{c} \cos \frac{2 \pi t k}{2 (F - 1)}, \qquad
              \text{or} \quad -\frac{w_t}{c} \sin \frac{2 \pi t k}{2 (F - 1)}.

    The angle is reduced in integer arithmetic and everything else is float64, so elements are exact
    to 1e-15 for any length. (NumPy's sine may differ in the last bit of float64 between machines.)
    Keras computes the angle in the kernel's dtype: in float32 its error is up to
    :math:`2^{-23} \pi T`, which is visible for long frames.

    References
    ----------
    ``keras.initializers.STFT``.

    Examples
    --------
    >>> STFT("real", window=None)((4, 1, 3))[:, 0]
    array([[ 1.,  1.,  1.],
           [ 1.,  0., -1.],
           [ 1., -1.,  1.],
           [ 1.,  0., -1.]], dtype=float32)
    """

    side: str = "real"
    window: str | Sequence[float] | None = "hann"
    scaling: str | None = "density"
    periodic: bool = False

    def __post_init__(self) -> None:
        self._parse(partial(one_of, known=_SIDES), "side")
        if isinstance(self.window, str):
            self._parse(partial(one_of, known=_WINDOWS), "window")
        elif self.window is not None:
            try:
                if isinstance(self.window, bytes):
                    raise TypeError
                values = tuple(finite("window", value) for value in self.window)
            except TypeError:
                raise TypeError(
                    f"window must be a name, a sequence of numbers or None, got {self.window!r}"
                ) from None
            object.__setattr__(self, "window", values)
        self._parse(optional(partial(one_of, known=_SCALINGS)), "scaling")
        object.__setattr__(self, "periodic", bool(self.periodic))

    def _frame(self, length: int) -> Array:
        """Return the window of a frame, divided as `scaling` says."""
        if self.window is None:
            return np.ones(length)
        if isinstance(self.window, str):
            window = window_values(self.window, length, self.periodic)
        else:
            window = np.array(self.window)
            if window.shape != (length,):
                raise ValueError(
                    f"window must have the frame's length {length}, got {window.size} values"
                )
        with np.errstate(over="ignore"):
            norm = _SCALINGS[self.scaling](window) if self.scaling else 1.0
        if not math.isfinite(norm):
            raise ValueError(f"window must have a finite norm, got {self.window!r}")
        if not norm and length:
            raise ValueError(f"window must not be 0 everywhere, got {self.window!r} of {length}")
        return window / (norm or 1.0)

    def check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Refuse the shape of another kernel, and a dtype whose range the window exceeds."""
        if len(shape) != 3 or shape[1] != 1 or shape[2] < 2:
            raise ValueError(
                "STFT is for kernels of shape (frame length, 1, bins) with at least two bins, "
                f"got shape {shape}"
            )
        frame = self._frame(shape[0])
        if frame.size:
            rounded(float(abs(frame).max()), dtype, "window")

    def fill_box(self, out: Array, box: Box, stream: Stream, num_threads: int | None) -> None:
        """Compute every element in float64."""
        shape = box.tensor
        (start, _, first), (length, _, bins) = box.starts, box.sizes
        frame = self._frame(shape[0])[start : start + length]
        period = 2 * (shape[2] - 1)
        k = np.arange(first, first + bins)
        kernel = box.expand(out)
        step = max(1, _CUT // max(1, bins))
        for begin in range(0, length if out.size else 0, step):
            t = np.arange(start + begin, start + min(length, begin + step))
            # cos(angle) is computed as the sine of a quarter turn minus |angle|, so that its zeros
            # are exactly 0.
            angle = (4 * (t[:, None] * k) + _SIDES[self.side] * period) % (4 * period)
            rest = period - np.minimum(angle, 4 * period - angle)
            values = np.sin(math.pi / (2 * period) * rest) * frame[begin : begin + step, None]
            kernel[begin : begin + step, 0] = values.astype(working(out.dtype))
