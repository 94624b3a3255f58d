"""What was found in a network, with the rules that mend it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from winit_fast.advice.examination import Finding
from winit_fast.diagnosis.report import Propagation


@dataclass(frozen=True)
class Advice:
    """What is set badly in a network, and the rules that mend it: see `winit_fast.advice.advise`.

    Attributes
    ----------
    findings : tuple of Finding
    notes : tuple of str
        What could not be examined.
    measured : winit_fast.diagnosis.Propagation or None
        What was measured with the batch.
    then : str
        The function to call after the rules have been applied, or "".
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    measured: Propagation | None = None
    then: str = ""

    @property
    def rules(self) -> dict[str, Any]:
        """Rules for `winit_fast.torch.init_`: the remedies; all other parameters are kept."""
        mended = {one.name: one.remedy for one in self.findings if one.remedy is not None}
        return {**mended, "*": "keep"}

    def __str__(self) -> str:
        lines = _lines(self.findings) or ["nothing was found"]
        lines += [f"then: {self.then}"] if self.then else []
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _lines(findings: Sequence[Finding]) -> list[str]:
    """List findings; those that differ only in their weight and its numbers are one line."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        kind = re.sub(r"[\d.e-]+", "", one.problem)
        groups.setdefault((kind, one.consequence, one.remedy, one.source), []).append(one)
    return [
        str(first) + (f" (and {len(others)} more, to {others[-1].name})" if others else "")
        for first, *others in groups.values()
    ]
