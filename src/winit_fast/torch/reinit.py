"""Makes chosen tensors of a module anew, in the middle of training."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch.nn import Module

from winit_fast.base.names import tied, unknown
from winit_fast.base.patterns import Matcher, Pattern
from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.filling import Fills, uncollected
from winit_fast.torch.names import Named, Names, tensors
from winit_fast.torch.optimizer_state import resets
from winit_fast.torch.recorded import entries_of_module, spec_of
from winit_fast.torch.rules import Rules
from winit_fast.torch.shards import key_for

M = TypeVar("M", bound=Module)


def reinit_(
    module: M,
    patterns: str | Sequence[str],
    *,
    seed: Seed = None,
    generation: int = 1,
    optimizer: torch.optim.Optimizer | None = None,
    rules: Rules | None = None,
    by: Callable[[M], object] | None = None,
    names: Names | None = None,
    prefix: str = "",
) -> M:
    """Make chosen tensors again, exactly as `init_` makes them, and leave all others as they are.

    Parameters
    ----------
    module : torch.nn.Module
        On any devices; sharded tensors as in `init_`.
    patterns : str or sequence of str
        Names of tensors, in which ``*`` stands for any text and ``{i}`` for a number. Each must
        match a tensor that `init_` fills. Frozen parameters are filled too.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        As in `init_`.
    generation : int
        Which of the tensors' numbers for this seed: 0 are those of `init_`.
    optimizer : torch.optim.Optimizer, optional
        What it keeps of the chosen parameters, such as moments and the number of steps, is reset to
        the state before their first step. What it keeps of others does not change.
    rules, by, names, prefix
        As in `init_`.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError, TypeError
        As `init_`; also if a pattern matches nothing, or the optimizer does not have a chosen
        parameter, or keeps no state for each one (LBFGS). Nothing has been written then.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
    >>> model = winit_fast.torch.init_(model, seed=0)
    >>> first, last = (layer.weight.detach().clone() for layer in model)
    >>> model = winit_fast.torch.reinit_(model, "1.*", seed=0, generation=1)
    >>> bool((model[0].weight == first).all()), bool((model[1].weight == last).any())
    (True, False)
    >>> model = winit_fast.torch.reinit_(model, "1.*", seed=0, generation=0)
    >>> bool((model[1].weight == last).all())
    True
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    if not wanted or not all(isinstance(pattern, str) for pattern in wanted):
        raise TypeError(f"patterns must be a name or several, got {patterns!r}")
    key = None if seed is None else seed_number(seed)
    with uncollected():
        entries = entries_of_module(module, rules, by, names, prefix, True)
        matcher = Matcher((pattern, None) for pattern in wanted)
        filled = [named.name for named, _ in entries.filled]
        for pattern in matcher.idle(filled):
            raise ValueError(_no_match(module, entries.filled, pattern))
        chosen, fills = [], Fills()
        for named, reduced in entries.filled:
            if matcher.find(named.name) is not None:
                chosen.append(named)
                fills.add_spec(named, spec_of(named, reduced).of_generation(generation))
        pending = [] if optimizer is None else resets(optimizer, chosen)
        fills.run(key_for(entries.found) if key is None else key)
        for reset in pending:
            reset()
    return module


def _no_match(module: Module, filled: Sequence[tuple[Named, object]], pattern: Pattern) -> str:
    """Compose the error for a pattern that matches nothing."""
    first = {id(named.tensor): named.name for named, _ in filled}
    for named in tensors(module, shared=True):
        if id(named.tensor) in first and pattern.match(named.name) is not None:
            return tied("patterns", pattern.text, named.name, first[id(named.tensor)])
    return unknown("a pattern in patterns", pattern.text, first.values())
