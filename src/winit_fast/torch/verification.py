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

from winit_fast.base.boxes import Box, cuts, whole
from winit_fast.base.version import __version__
from winit_fast.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from winit_fast.initializers.parts import Part
from winit_fast.initializers.protocol import Initializer
from winit_fast.models import plan_json
from winit_fast.models.plan import Plan
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.stream import STREAM_VERSION, Seed, Stream, seed_number
from winit_fast.torch.expressions import TorchExpression
from winit_fast.torch.filling import checked, uncollected
from winit_fast.torch.memory import FLOATS, as_array
from winit_fast.torch.names import Named, tensors
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
    """The result of `verify_`: the same on all ranks, except for `differences`.

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
    module: Module, plan: Plan, seed: Seed, *, group: "dist.ProcessGroup | None" = None
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
    group : torch.distributed.ProcessGroup, optional
        The ranks that hold the same plan; by default all. Stages of a pipeline with plans of their
        own are groups of their own.

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
    once, because only equal boxes of it have equal bits; and values that torch computes are made
    whole.

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
            for named, spec in planned(module, tensors(module), plan):
                difference = _difference(named, spec, key, rank)
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


def _difference(named: Named, spec: TensorSpec, key: int, rank: int) -> Difference | None:
    checked(spec, named)
    first: Difference | None = None
    count = 0
    for found, held, expected in _pairs(named.tensor, spec, key):
        differs = _differs(found, expected)
        number = int(differs.sum())
        if number and first is None:
            at = int(differs.flatten().int().argmax())
            steps = np.unravel_index(at, differs.shape)
            index = tuple(start + int(step) for start, step in zip(held.starts, steps, strict=True))
            one, other = (str(each.flatten()[at].item()) for each in (found, expected))
            first = Difference(named.name, rank, index, one, other, 0)
        count += number
    return None if first is None else replace(first, differing=count)


def _pairs(tensor: Tensor, spec: TensorSpec, key: int) -> Iterator[tuple[Tensor, Box, Tensor]]:
    """Iterate over pieces of this rank's part on the host: as found, their boxes, as expected."""
    scheme, dtype = spec.initializer, getattr(torch, spec.dtype)
    held = parts(tensor) if is_sharded(tensor) else [(tensor.detach(), whole(spec.shape))]
    if isinstance(scheme, TorchExpression) or dtype not in FLOATS:
        expected = None
        for part, box in held:
            if part.numel():  # a table, or values that are computed from the whole
                expected = _whole(spec, key) if expected is None else expected
                yield part.cpu(), box, expected[box.slices]
        return
    drawn_in = dtype if spec.drawn_in is None else getattr(torch, spec.drawn_in)
    fill = scheme.prepared(spec.shape, FLOATS[drawn_in].dtype, Stream(key, spec.stream))
    for part, box in held:
        limit = part.numel() if _has_orthogonal(scheme) else PIECE_BYTES // drawn_in.itemsize
        for cut in cuts(tuple(part.shape), max(1, limit)):
            found = part[cut].cpu()
            if found.numel():
                made = torch.empty(found.shape, dtype=drawn_in)
                array = as_array(made)
                assert array is not None  # a new tensor
                fill(array, box.cut(cut), None)
                yield found, box.cut(cut), made.to(dtype)


def _has_orthogonal(scheme: object) -> bool:
    """Return whether a scheme's bits in a box depend on the box."""
    if isinstance(scheme, (Orthogonal, DeltaOrthogonal)):
        return True
    if isinstance(scheme, Part):
        return _has_orthogonal(scheme.initializer)
    if isinstance(scheme, Initializer):
        scheme = tuple(vars(scheme).values())
    return isinstance(scheme, (tuple, list)) and any(map(_has_orthogonal, scheme))


def _whole(spec: TensorSpec, key: int) -> Tensor:
    made = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="cpu")
    named = Named(spec.name, made, Module(), "", True, True)
    checked(spec, named)(key)
    return made


def _differs(found: Tensor, expected: Tensor) -> Tensor:
    """Compare bits: NaN equals NaN, and -0 differs from 0."""
    if found.is_complex():
        return _differs(*map(torch.view_as_real, (found, expected))).any(-1)
    words = _WORDS[found.itemsize]
    return found.view(words) != expected.view(words)


_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


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
        if isinstance(scheme, TorchExpression):
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(scheme._key())).encode())
    return f"sha256:{digest.hexdigest()}"
