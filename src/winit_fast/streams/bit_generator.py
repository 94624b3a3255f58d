"""The stream behind NumPy's Generator: every distribution of NumPy over the same words."""

from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import numpy as np

from winit_fast._core import Words
from winit_fast.base.arguments import integer, word
from winit_fast.streams.stream import Seed, seed_number, stream_id

JUMP = 1 << 48
"""Words that `Philox4x32.jumped` leaves out: 65536 jumps before the stream is back at its start."""


class Philox4x32(np.random.BitGenerator):
    """A bit generator for NumPy over the words of `Stream`.

    ``numpy.random.Generator(Philox4x32(seed, name))`` draws, by NumPy's own algorithms, from the
    words that ``Stream(seed, name).bits`` gives.

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
        As in `Stream`: an integer from 0 to 2^64 - 1 is the key itself.
    name : str, int or None
        The name of the stream, or its number.

    Notes
    -----
    The words are used in order and none is left out: a number of 32 bits is the next word; one of
    64 bits is the next two, the low one first, wherever in the stream they stand. So no half of a
    number is ever pending, as it may be in NumPy's own bit generators, and the position alone is
    the state. There are 2^64 words; after the last comes the first. The generator is Philox4x32-10
    [1]_; it is not cryptographic. NumPy's Philox is another one of the same family, with words of
    64 bits.

    ``random_raw``, ``ctypes`` and ``cffi`` are NumPy's. As with all of its bit generators, threads
    may share a Generator, whose lock they then wait for; each had better have its own, under a name
    or a ``spawn`` of its own.

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

    # A Generator keeps the address of the words: they are to live as long as this object, even if
    # __init__ is called again.
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
        """Seed, stream and position: all there is to know of the generator.

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
        """Go on, or back, without drawing.

        Parameters
        ----------
        delta : int
            How many words of 32 bits.

        Returns
        -------
        Philox4x32
            This one.

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
        """Make another one, 2^48 words further on in the same stream.

        A stream under another name is as easily had, and has no end in common with this one.

        Parameters
        ----------
        jumps : int
            How many times 2^48 words.

        Returns
        -------
        Philox4x32
            A new one.
        """
        other = type(self)(self._sequence)
        other.state = self.state
        return other.advance(integer("jumps", jumps) * JUMP)

    def spawn(self, n_children: int) -> list[Self]:
        """Make bit generators of the same stream number and of independent seeds.

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
        if not 0 <= count < 1 << 32:  # the range of SeedSequence, which says OverflowError
            raise ValueError(f"n_children must be from 0 to 2^32 - 1, got {count}")
        _, stream, _ = self._words.place()
        children = self._sequence.spawn(count)
        return [type(self)(seed, stream) for seed in children]

    @property
    def _sequence(self) -> np.random.SeedSequence:
        return cast(np.random.SeedSequence, self.seed_seq)  # never one without `spawn`

    def __reduce__(  # type: ignore[override]  # NumPy's is for its own constructor
        self,
    ) -> tuple[Callable[..., Self], tuple[np.random.SeedSequence], dict[str, Any]]:
        return type(self), (self._sequence,), self.state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state
