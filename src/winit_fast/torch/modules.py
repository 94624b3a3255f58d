"""Fills whole modules as their author's code does, or by rules."""

from collections.abc import Callable
from typing import TypeVar

from torch.nn import Module

from winit_fast.streams.identity import Seed, seed_number
from winit_fast.torch.filling import Fills, uncollected
from winit_fast.torch.names import Names
from winit_fast.torch.recorded import entries_of_module, spec_of
from winit_fast.torch.rules import Rules
from winit_fast.torch.shards import key_for

M = TypeVar("M", bound=Module)


def init_(
    module: M,
    rules: Rules | None = None,
    *,
    seed: Seed = None,
    by: Callable[[M], object] | None = None,
    names: Names | None = None,
    prefix: str = "",
    frozen: str = "keep",
    generation: int = 0,
) -> M:
    """Fill a module's tensors as its author's code does, or by rules, each from its own stream.

    Each stream has the name of its tensor, so a tensor's numbers do not depend on other tensors:
    a new layer, another order, device or memory layout changes no bit of the other tensors. The
    same schemes give the same numbers for the same name without torch.

    First the author's own code is recorded, without reading or writing a byte of the tensors. The
    record of each tensor is then reduced to one scheme, everything is checked, and the tensors are
    filled. A model with weights from a checkpoint is initialised again.

    Parameters
    ----------
    module : torch.nn.Module
        On any devices. Tensors on the meta device are not changed. A tied tensor, which has several
        names, is filled once, under its first name. Of a DTensor, every rank fills its part of
        the logical tensor, without communication; a seed is then required.
    rules : mapping of (str or type) to rule, or callable, optional
        A str key is a parameter's name, a pattern in which ``*`` stands for any characters, or the
        name of a class of modules, such as "Embedding". A type key is a class of modules, such as
        ``torch.nn.Linear``. The first key that matches counts, but the exact name of a tensor takes
        precedence; buffers and frozen parameters match only their exact names. The rule for a class
        of modules is that of their ``weight``, or a mapping of their tensors' names to rules. A
        callable takes a parameter's name and the parameter and returns its rule, or None.

        A rule is an initializer of this package, its name as in `winit_fast.get`, "keep", or a
        function that fills the tensor it is given, which is recorded. If an initializer does not
        set its axes and fans, those of the tensor's module are used: ``(out, in, *kernel)`` with
        the groups of a convolution, ``(in, out, *kernel)`` for a transposed convolution. Padding
        rows of embeddings are zero after every rule.
    seed : int, numpy.random.SeedSequence, numpy.random.Generator, optional
        By default 64 bits from torch's generator, which `torch.manual_seed` seeds. With a seed,
        the generator does not change.
    by : callable, optional
        A function that initialises the module it is given, in place of the author's method.
    names : mapping of str to str, or callable, optional
        Maps the name of a tensor to the name of its stream.
    prefix : str
        The name of the module in a larger module; the tensors get the numbers that they have there.
    frozen : str
        "keep": parameters that require no gradient do not change, unless a rule names them or the
        model's whole-model method, or ``by``, sets them. "fill": they are filled like all others.

    generation : int
        From 1 on, other numbers for the same seed and names, for example when layers are
        initialised again in the middle of training.

    Returns
    -------
    torch.nn.Module
        The same module.

    Raises
    ------
    ValueError
        If only its constructor fills a parameter; if the author's code does something that cannot
        be recorded (it reads drawn numbers, or the previous elements of a tensor); if a pattern
        matches nothing, or a rule writes nothing; if memory that is kept is not finite.
    TypeError
        If a rule is invalid or does not fit the parameter's type, a tensor is more than its memory
        (quantised, for example), or it is not a part of a logical tensor (a Partial DTensor,
        another library's shard).

        Nothing has been written when an error is raised.

    Warns
    -----
    UserWarning
        If random numbers are drawn that reach no tensor of the module.

    Notes
    -----
    The recorded code is ``by`` if given, otherwise the whole-model methods of the outermost modules
    that have one: ``initialize_weights`` of transformers, whose flags are reset and restored;
    ``init_states`` or ``init_weights`` of torchtitan; ``init_weights`` of timm and torchvision.
    Parameters that these do not fill are filled by the ``reset_parameters`` of their modules, inner
    modules first, or by ``_reset_parameters``, its name in torch's attention and transformer.
    Buffers that no code fills do not change. docs/contract.md defines the streams' names.

    Examples
    --------
    >>> import torch
    >>> import winit_fast as wf
    >>> import winit_fast.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 8))
    >>> rules = {"*.bias": "zeros", "0.weight": wf.HeNormal()}  # 1.weight: as Linear does it
    >>> model = winit_fast.torch.init_(model, rules, seed=0)
    >>> alone = wf.HeNormal(in_axis=1, out_axis=0)((32, 64), seed=0, name="0.weight")
    >>> bool((model[0].weight == torch.from_numpy(alone)).all())
    True
    """
    if frozen not in ("keep", "fill"):
        raise ValueError(f"frozen must be 'keep' or 'fill', got {frozen!r}")
    key = None if seed is None else seed_number(seed)
    with uncollected():
        entries = entries_of_module(module, rules, by, names, prefix, frozen == "fill")
        fills = Fills()
        for named, reduced in entries.filled:
            if generation == 0:
                fills.add(named, *reduced)
            else:
                fills.add_spec(named, spec_of(named, reduced).of_generation(generation))
        fills.run(key_for(entries.found) if key is None else key)
    return module
