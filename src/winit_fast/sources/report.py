"""What became of the tensors of a model, and of those of the checkpoint that it is made from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from winit_fast.sources.growth import Growth

COPIED, CONVERTED, EXTENDED, ANEW = STATUSES = ("copied", "converted", "extended", "anew")
"""What became of a tensor. A converted one has another type than in the checkpoint."""


class Row(NamedTuple):
    """What became of one tensor.

    Attributes
    ----------
    name : str
    status : {"copied", "converted", "extended", "anew"}
    shape : tuple of int
    source : str or None
        The name of the tensor in the checkpoint.
    source_shape : tuple of int or None
    """

    name: str
    status: str
    shape: tuple[int, ...]
    source: str | None = None
    source_shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Report:
    """What became of every tensor, and which tensors of the checkpoint are not used.

    Attributes
    ----------
    rows : tuple of Row
        In the order of the plan, without the non-persistent buffers that the checkpoint does not
        have.
    unused : tuple of str
    """

    rows: tuple[Row, ...]
    unused: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Count the tensors of each status.

        Examples
        --------
        >>> Report((Row("w", "copied", (3,), "w", (3,)),), ("v",)).counts()
        {'copied': 1, 'converted': 0, 'extended': 0, 'anew': 0, 'unused': 1}
        """
        counted = Counter(row.status for row in self.rows)
        return {**{status: counted[status] for status in STATUSES}, "unused": len(self.unused)}

    def names(self, status: str) -> list[str]:
        """List the tensors of a status, or those of the checkpoint that are "unused"."""
        if status == "unused":
            return list(self.unused)
        return [row.name for row in self.rows if row.status == status]

    def of_schemes(self, growth: Growth) -> list[str]:
        """List the tensors that the model's schemes make, wholly or in part."""
        return self.names(ANEW) + (self.names(EXTENDED) if growth.new_rows == "scheme" else [])

    def to_json(self) -> str:
        """Return the report as JSON."""
        content = {
            "counts": self.counts(),
            "tensors": [row._asdict() for row in self.rows],
            "unused": self.unused,
        }
        return json.dumps(content, indent=1) + "\n"


def summary(report: Report, few: int = 8) -> Iterable[tuple[str, str, str]]:
    """Yield status, number of tensors and the first names, for a table."""
    for status, count in report.counts().items():
        if not count:
            continue
        names = report.names(status)
        more = f", ... and {count - few} more" if count > few else ""
        listed = "" if status in (COPIED, CONVERTED) else ", ".join(names[:few]) + more
        yield status, f"{count:,}", listed
