"""DTensors: each rank fills its part, and the logical tensor does not depend on the layout.

Cases with several ranks are in sharded_ranks.py, which runs them in real process groups.
"""

import itertools
import json
import math
import random
import subprocess
import sys
from operator import add
from pathlib import Path

import pages
import pytest
import sharded_ranks
import torch
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard

from winit_fast.torch.placements import places

WORLDS = sharded_ranks.SILENT, 1, 2, 3, 4, 8


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What every rank of every world says of every case."""
    report = tmp_path_factory.mktemp("ranks") / "report.json"
    program = Path(sharded_ranks.__file__)
    run = subprocess.run(
        [sys.executable, program, report, *map(str, WORLDS)],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(report.read_text())


@pytest.mark.parametrize(
    ("world", "case"),
    [(world, name) for world in WORLDS for name, (worlds, _) in sharded_ranks.CASES.items()
     if world in worlds],
)  # fmt: skip
def test_ranks(reports, world, case):
    of_ranks = reports[str(world)]
    assert len(of_ranks) == (world or 8)
    for rank, report in enumerate(of_ranks):
        assert report.get(case, "it was not reached") is None, f"rank {rank}: {report.get(case)}"


def random_layout(generator):
    axes, mesh_axes = generator.randint(1, 3), generator.randint(1, 3)
    shape = [generator.choice([0, 1, 2, 5, 7, 8, 12]) for _ in range(axes)]
    mesh = [generator.randint(1, 4) for _ in range(mesh_axes)]
    placements = []
    for _ in mesh:
        axis = generator.randrange(axes)
        split = generator.randint(1, 4)
        placements.append(
            generator.choice([Replicate(), Shard(axis), _StridedShard(axis, split_factor=split)])
        )
    return shape, mesh, placements


def test_places_are_where_torch_puts_them():
    """Random placements on all ranks agree with how torch splits, and where it starts shards."""
    generator = random.Random(13)
    strided = 0
    for _ in range(300):
        shape, mesh, placements = random_layout(generator)
        whole = torch.arange(math.prod(shape)).reshape(shape)
        for coordinate in itertools.product(*map(range, mesh)):
            expected = whole
            for at, placement in enumerate(placements):
                if not isinstance(placement, Replicate):
                    cuts, _ = placement._split_tensor(expected, mesh[at], with_padding=False)
                    expected = cuts[coordinate[at]]
            held = places(shape, placements, mesh, coordinate)
            local = torch.full(expected.shape, -1)
            for box, index in held:
                assert (local[index] == -1).all()
                local[index] = whole[tuple(map(slice, box.starts, map(add, box.starts, box.sizes)))]
            assert torch.equal(local, expected), (shape, mesh, placements, coordinate)
            own_shape, first = _compute_local_shape_and_global_offset(
                shape, mesh, list(coordinate), placements
            )
            assert own_shape == tuple(local.shape)
            assert not held or held[0].box.starts == first
            strided += len(held) > 1
    assert strided > 100  # ranks that hold more than one box


def test_another_order_of_the_mesh():
    """As with DTensor's shard_order: the second axis of the mesh cuts first."""
    placements = [Shard(0), Shard(0)]
    rows = {
        coordinate: places((12, 2), placements, (2, 3), coordinate, order=(1, 0))[0].box.starts[0]
        for coordinate in itertools.product(range(2), range(3))
    }
    assert rows == {(0, 0): 0, (1, 0): 2, (0, 1): 4, (1, 1): 6, (0, 2): 8, (1, 2): 10}


class Other(Shard):
    """A placement of unknown kind."""


@pytest.mark.parametrize("placement", [Partial(), Other(0)], ids=str)
def test_other_placements_are_refused(placement):
    with pytest.raises(TypeError, match="must be Shard, Replicate or _StridedShard"):
        places((4, 4), [placement], (2,), (0,))
    with pytest.raises(ValueError, match="outside of shape"):
        places((4, 4), [Shard(2)], (2,), (0,))


def test_the_page():
    """docs/sharded.md, in a process of its own, because it creates a process group."""
    program = f"import pages; pages.run(pages.DOCS / {'sharded.md'!r})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=pages.ROOT / "tests"
    )
    assert run.returncode == 0, run.stderr
