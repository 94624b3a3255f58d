"""A bit generator for NumPy's Generator, so that all of NumPy's distributions can use a stream."""

from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import numpy as np

from winit_fast._core import Words
from winit_fast.base.arguments import integer, word
from winit_fast.streams.identity import Seed, seed_number, stream_id

JUMP = 1 << 48
"""Words that `Philox4x32.jumped` skips: after 65536 jumps the stream is back at its start."""


class Philox4x32(np.random.BitGenerator):
    """A NumPy bit generator that returns the words of a `Stream`.

    ``numpy.random.Generator(Philox4x32(seed, name))`` draws with NumPy's own algorithms from the
    words of ``Stream(seed, name).bits``.

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        As in `Stream`: an integer from 0 to 2^64 - 1 is used as the key.
    name : str, int or None
        The name of the stream, or its number.

    Notes
    -----
    The words are used in order and none is skipped: a 32-bit number is the next word, a 64-bit
    number is the next two words, the low one first, whatever their position. So, unlike NumPy's own
    bit generators, this one never buffers half of a number, and the position alone is its state.
    The period is 2^64 words. The generator is Philox4x32-10 [1]_; it is not cryptographic.
    NumPy's Philox is another member of the same family, with 64-bit words.

    ``random_raw``, ``ctypes`` and ``cffi`` are NumPy's. As with all of NumPy's bit generators,
    threads may share a Generator, but then they wait for its lock. It is better to give each thread
    a Generator of its own, with another name or from ``spawn``.

    References
    ----------
    .. [1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> import winit_fast as wf
    >>> generator = np.random.Generator(wf.Philox4x32(0, "dropout"))
    >>> generator.binomial(10, 0.5, 5)
    array([...])
    >>> words = np.random.Generator(wf.Philox4x32(0, "x")).integers(1 << 32, size=4, dtype="uint32")
    >>> bool((words == wf.Stream(0, "x").bits(4)).all())
    True
    """

    _words: Words

    # A Generator keeps a pointer to the C state, which must therefore live as long as this object,
    # even if __init__ is called again.
    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._words = Words()
        return self

    def __init__(self, seed: Seed = None, name: str | int | None = None) -> None:
        key, stream = seed_number(seed), stream_id(name)
        super().__init__(seed if isinstance(seed, np.random.SeedSequence) else key)
        self._words.seek(key, stream, 0)
        self._words.drive(self.capsule)

    @property
    def state(self) -> dict[str, Any]:
        """The whole state of the generator: seed, stream and position.

        Examples
        --------
        >>> generator = Philox4x32(7)
        >>> _ = generator.random_raw(3)
        >>> generator.state
        {'bit_generator': 'Philox4x32', 'state': {'seed': 7, 'stream': 0, 'position': 6}}
        """
        with self.lock:
            seed, stream, position = self._words.place()
        return {
            "bit_generator": type(self).__name__,
            "state": {"seed": seed, "stream": stream, "position": position},
        }

    @state.setter
    def state(self, value: Mapping[str, Any]) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"state must be a dict, got {value!r}")
        try:
            kind, state = value["bit_generator"], value["state"]
            if not isinstance(state, Mapping):
                raise TypeError(f"state must hold a dict as its 'state', got {value!r}")
            place = [word(part, state[part]) for part in ("seed", "stream", "position")]
        except KeyError as error:
            raise ValueError(f"state must have the key {error}, got {value!r}") from None
        if not (isinstance(kind, str) and kind == type(self).__name__):
            raise ValueError(f"state must be of a {type(self).__name__}, got one of a {kind}")
        with self.lock:
            self._words.seek(*place)

    def advance(self, delta: int) -> Self:
        """Move the position forwards or backwards without drawing.

        Parameters
        ----------
        delta : int
            Number of 32-bit words.

        Returns
        -------
        Philox4x32
            This object.

        Examples
        --------
        >>> bool(Philox4x32(0).advance(6).random_raw() == Philox4x32(0).random_raw(4)[3])
        True
        """
        step = integer("delta", delta)
        with self.lock:
            seed, stream, position = self._words.place()
            self._words.seek(seed, stream, (position + step) % (1 << 64))
        return self

    def jumped(self, jumps: int = 1) -> Self:
        """Return a new bit generator, 2^48 words further on in the same stream.

        A bit generator with another name is as easy to make, and cannot overlap with this one.

        Parameters
        ----------
        jumps : int
            The position is advanced by this number times 2^48 words.

        Returns
        -------
        Philox4x32
            A new bit generator.
        """
        other = type(self)(self._sequence)
        other.state = self.state
        return other.advance(integer("jumps", jumps) * JUMP)

    def spawn(self, n_children: int) -> list[Self]:
        """Make bit generators with the same stream number and independent seeds.

        Parameters
        ----------
        n_children : int

        Returns
        -------
        list of Philox4x32
            Their seeds are those of ``seed_seq.spawn(n_children)``.

        Examples
        --------
        >>> a, b = np.random.Generator(Philox4x32(0, "noise")).spawn(2)
        >>> bool(a.random() == b.random())
        False
        """
        count = integer("n_children", n_children)
        if not 0 <= count < 1 << 32:  # beyond this SeedSequence would raise OverflowError
            raise ValueError(f"n_children must be from 0 to 2^32 - 1, got {count}")
        _, stream, _ = self._words.place()
        children = self._sequence.spawn(count)
        return [type(self)(seed, stream) for seed in children]

    @property
    def _sequence(self) -> np.random.SeedSequence:
        return cast(np.random.SeedSequence, self.seed_seq)  # always a class with `spawn`

    def __reduce__(  # type: ignore[override]  # NumPy's signature is that of its own constructor
        self,
    ) -> tuple[Callable[..., Self], tuple[np.random.SeedSequence], dict[str, Any]]:
        return type(self), (self._sequence,), self.state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state
