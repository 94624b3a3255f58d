"""What launchers of several processes say: the number of this process, and of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
"""The variables of a process's number and of the number of processes; the first pair counts."""


class Launched(NamedTuple):
    """The variables of a launcher.

    Attributes
    ----------
    rank, world : int
    names : str
        The names of the variables.
    """

    rank: int
    world: int
    names: str


def launched(environment: Mapping[str, str]) -> Launched | None:
    """Read the variables of the launcher that has started this process, if one has.

    Raises
    ------
    ValueError
        If a variable is no number, or the rank is not below the number of processes.

    Examples
    --------
    >>> launched({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"})
    Launched(rank=1, world=4, names='SLURM_PROCID and SLURM_NTASKS')
    """
    for names in LAUNCHERS:
        if not all(name in environment for name in names):
            continue
        texts = [environment[name] for name in names]
        for name, text in zip(names, texts, strict=True):
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise ValueError(f"{name} must be a number, got {text!r:.100}")
        rank, world = map(int, texts)
        if rank >= world:
            raise ValueError(f"{names[0]} must be below {names[1]}, got {rank} of {world}")
        return Launched(rank, world, " and ".join(names))
    return None
