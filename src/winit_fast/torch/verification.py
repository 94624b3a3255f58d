"""Verification of modules: every rank compares what it holds with a plan, then the ranks agree."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.dtypes import find_any
from winit_fast.base.version import __version__
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Part
from winit_fast.initializers.protocol import Initializer
from winit_fast.models import plan_json
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import STREAM_VERSION, Seed, seed_number
from winit_fast.torch.expressions import TorchExpression, numpy_of
from winit_fast.torch.filling import uncollected
from winit_fast.torch.names import Named, Names, modules, tensors
from winit_fast.torch.placements import is_sharded, parts
from winit_fast.torch.plans import planned

PIECE_BYTES = 1 << 24
"""Most bytes of a tensor that are made again at a time, in the dtype in which they are drawn."""

RECORD_BYTES = 1024
"""Bytes that a rank sends to the others."""


@dataclass(frozen=True)
class Difference:
    """A tensor of which a rank holds other elements than the plan has.

    Attributes
    ----------
    name : str
    rank : int
    index : tuple of int
        Index of the first such element in the logical tensor, in the order of this rank's memory.
    found, expected : str
        Its value on the rank, and in the plan.
    differing : int
        Number of such elements on this rank.
    """

    name: str
    rank: int
    index: tuple[int, ...]
    found: str
    expected: str
    differing: int

    def __str__(self) -> str:
        return (
            f"rank {self.rank}: {self.name!r} differs from the plan in {self.differing:,} "
            f"elements, first at {self.index}: it is {self.found}, should be {self.expected}"
        )


@dataclass(frozen=True)
class RankReport:
    """The result of one rank.

    Attributes
    ----------
    rank : int
    seed : int
    plan : str
        Digest of the plan.
    version : str
        Version of the package and of the stream.
    differing : int
        Number of tensors that differ.
    first : Difference or None
        The first of them.
    """

    rank: int
    seed: int
    plan: str
    version: str
    differing: int
    first: Difference | None


@dataclass(frozen=True)
class ModuleVerification:
    """The result of `verify_`: the same on all ranks, but for ``differences``.

    Attributes
    ----------
    differences : tuple of Difference
        All tensors that differ on this rank.
    ranks : tuple of RankReport
        One for each rank of the group.
    """

    differences: tuple[Difference, ...]
    ranks: tuple[RankReport, ...]

    @property
    def fresh(self) -> bool:
        """Whether all ranks agree, and hold exactly the values of the plan."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each problem: ranks that disagree, and the first difference of each rank."""
        found = []
        for what, said in (
            ("seed", [rank.seed for rank in self.ranks]),
            ("plan", [rank.plan for rank in self.ranks]),
            ("version", [rank.version for rank in self.ranks]),
        ):
            for rank, own in zip(self.ranks, said, strict=True):
                if own != said[0]:
                    found.append(
                        f"rank {rank.rank} has {what} {own}, rank {self.ranks[0].rank} {said[0]}"
                    )
        found += [str(rank.first) for rank in self.ranks if rank.first is not None]
        return tuple(found)

    def __str__(self) -> str:
        return "\n".join(self.problems) or f"{len(self.ranks)} ranks hold the values of the plan"


def verify_(
    module: Module,
    plan: Plan,
    seed: Seed,
    *,
    names: Names | None = None,
    prefix: str = "",
    group: "dist.ProcessGroup | None" = None,
) -> ModuleVerification:
    """Compare the tensors of a module with a plan, bit for bit; nothing is changed.

    Every rank makes the elements that it holds again, piece by piece, and compares them. If there
    is a process group, all its ranks must call this function: at the end they exchange one message
    of 1 KiB each, by which ranks with other seeds, plans or versions are found.

    Parameters
    ----------
    module : torch.nn.Module
        As for `fill_`.
    plan : winit_fast.Plan
    seed : int, numpy.random.SeedSequence, numpy.random.Generator
    names, prefix
        As in `fill_`.
    group : torch.distributed.ProcessGroup, optional
        The ranks that are given the same plan; by default all.

    Returns
    -------
    ModuleVerification
        Its ``fresh`` is true if everything is equal on all ranks. Printed, it shows the problems.

    Raises
    ------
    ValueError, TypeError
        As `fill_`, if the module and the plan do not fit. The other ranks then raise a
        RuntimeError, so that none waits.

    Notes
    -----
    Pieces have at most 16 MiB. Only of an orthogonal matrix this rank's whole part is made again at
    once, because only equal boxes of it have equal bits.

    Examples
    --------
    >>> import torch
    >>> import winit_fast.torch
    >>> plan = winit_fast.torch.record(lambda: torch.nn.Linear(64, 32))
    >>> layer = winit_fast.torch.fill_(torch.nn.Linear(64, 32), plan, seed=0)
    >>> winit_fast.torch.verify_(layer, plan, 0).fresh
    True
    >>> with torch.no_grad():
    ...     layer.bias[3] = 1
    >>> print(winit_fast.torch.verify_(layer, plan, 0).differences[0].index)
    (3,)
    """
    is_alone = not (dist.is_available() and dist.is_initialized())
    if is_alone and group is not None:
        raise ValueError(f"group must be None without a process group, got {group!r}")
    rank = 0 if is_alone else dist.get_rank()
    differences: list[Difference] = []
    failure: BaseException | None = None
    try:
        record: dict[str, Any] = {"version": f"{__version__}, stream {STREAM_VERSION}"}
        if seed is None:
            raise ValueError("seed must be given, got None")
        if not isinstance(plan, Plan):
            raise TypeError(f"plan must be a Plan, got {plan!r}")
        key = seed_number(seed)
        with torch.no_grad(), uncollected():
            inside = list(modules(module))
            found = tensors(module, inside=inside)
            for named, tensor in planned(inside, found, plan, names, prefix):
                difference = _difference(named, tensor, key, rank)
                if difference is not None:
                    differences.append(difference)
        record |= {"seed": key, "plan": _digest(plan), "differing": len(differences)}
        if differences:
            record["first"] = _record(differences[0])
    except Exception as error:
        failure, record = error, {"error": f"{error!s:.200}"}
    records = [record] if is_alone else _exchanged(record, group)
    if failure is not None:
        raise failure
    ranks = [rank] if is_alone else _ranks(group)
    for number, other in zip(ranks, records, strict=True):
        if "error" in other:
            raise RuntimeError(f"rank {number} could not compare: {other['error']}")
    reports = [_report(number, other) for number, other in zip(ranks, records, strict=True)]
    return ModuleVerification(tuple(differences), tuple(reports))


# ------------------------------------------------------------------------------------ comparison


def _difference(named: Named, tensor: TensorSpec, key: int, rank: int) -> Difference | None:
    first: Difference | None = None
    count = 0
    for found, held, expected in _pairs(named.tensor, tensor, key):
        differs = np.flatnonzero(_differ(found, expected))
        if differs.size and first is None:
            steps = np.unravel_index(int(differs[0]), found.shape)
            index = tuple(start + int(step) for start, step in zip(held.starts, steps, strict=True))
            one, other = (str(each.flat[differs[0]]) for each in (found, expected))
            first = Difference(named.name, rank, index, one, other, 0)
        count += differs.size
    return None if first is None else replace(first, differing=count)


def _pairs(tensor: Tensor, planned: TensorSpec, key: int) -> Iterator[tuple[Array, Box, Array]]:
    """Iterate over pieces of this rank's part on the host: as found, their boxes, as expected."""
    dtype, fill = find_any(planned.dtype), planned.filler(key)
    whole_tensor = [(tensor.detach(), whole(planned.shape))]
    for part, held in parts(tensor) if is_sharded(tensor) else whole_tensor:
        limit = PIECE_BYTES // dtype.itemsize
        if _is_made_whole(planned.initializer):
            limit = part.numel()
        for cut in cuts(tuple(part.shape), max(1, limit)):
            found, box = numpy_of(part[cut]), held.cut(cut)
            if found.size:
                expected = np.empty(found.shape, dtype)
                fill(expected, box, None)
                yield found, box, expected


def _is_made_whole(scheme: object) -> bool:
    """Return whether a scheme's bits in a box depend on the box, or torch computes all of them."""
    if isinstance(scheme, (Orthogonal, DeltaOrthogonal, TorchExpression)):
        return True
    if isinstance(scheme, Part):
        return _is_made_whole(scheme.initializer)
    if isinstance(scheme, Initializer):
        scheme = tuple(vars(scheme).values())
    return isinstance(scheme, (tuple, list)) and any(map(_is_made_whole, scheme))


def _differ(found: Array, expected: Array) -> Array:
    """Compare bits, element by element in C order: NaN equals NaN, and -0 differs from 0."""
    word = f"u{min(8, found.itemsize)}"
    one, other = (np.ascontiguousarray(each).reshape(-1).view(word) for each in (found, expected))
    differs: Array = (one != other).reshape(found.size, -1).any(axis=1)
    return differs


# -------------------------------------------------------------------------------------- exchange


def _exchanged(record: dict[str, Any], group: "dist.ProcessGroup | None") -> list[dict[str, Any]]:
    """Send this rank's record to all ranks of a group, and return the records of all."""
    content = json.dumps(record, ensure_ascii=False).encode(errors="replace")
    assert len(content) <= RECORD_BYTES, content
    device = dist.distributed_c10d._get_object_coll_device(group)
    own = torch.tensor(list(content.ljust(RECORD_BYTES)), dtype=torch.uint8, device=device)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    return [json.loads(bytes(each.tolist())) for each in found]


def _ranks(group: "dist.ProcessGroup | None") -> list[int]:
    found: list[int] = dist.get_process_group_ranks(group or dist.group.WORLD)
    return found


def _record(difference: Difference) -> list[Any]:
    name = difference.name
    if len(name) > 100:
        name = f"{name[:50]}...{name[-47:]}"
    return [name, difference.index, difference.found, difference.expected, difference.differing]


def _report(rank: int, record: dict[str, Any]) -> RankReport:
    first = None
    if "first" in record:
        name, index, found, expected, differing = record["first"]
        first = Difference(name, rank, tuple(index), found, expected, differing)
    return RankReport(
        rank, record["seed"], record["plan"], record["version"], record["differing"], first
    )


def _digest(plan: Plan) -> str:
    """Return a digest of a plan, also of schemes that JSON cannot hold."""
    digest = sha256(plan_json.text(plan, {}, strict=False).encode())
    for tensor in plan:
        scheme = tensor.initializer
        if type(scheme).__module__.startswith("winit_fast.torch."):
            written = repr(getattr(scheme, "_key", scheme.__repr__)())
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", written).encode())
    return f"sha256:{digest.hexdigest()}"
