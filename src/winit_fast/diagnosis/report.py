"""What was measured of a network at work, as a table, a figure and a page."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from winit_fast.base.arguments import path as path_argument
from winit_fast.base.tables import number, table
from winit_fast.diagnosis.rows import Row, of_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("name", "type", "mean", "deviation", "dead", "saturated", "gradient", "largest",
            "smallest")  # fmt: skip


@dataclass(frozen=True)
class Propagation:
    """What `winit_fast.diagnosis.propagate` has measured.

    Attributes
    ----------
    rows : tuple of Row
        In the order of execution.
    loss : float or None
        The loss, if a loss was given.

    Examples
    --------
    >>> layer = Row("0", "layer", "Linear", 0.0, 1.0)
    >>> print(Propagation((layer, Row("1", "activation", "ReLU", 0.4, 0.58, 0.1))))
    name  type    mean  deviation  dead  saturated  gradient  largest  smallest
    0     Linear     0          1     -          -         -        -         -
    1     ReLU     0.4       0.58   10%          -         -        -         -
    """

    rows: tuple[Row, ...]
    loss: float | None = None

    @property
    def layers(self) -> tuple[Row, ...]:
        """The rows of layers, without activations and normalisations."""
        return of_layers(self.rows)

    def __getitem__(self, name: str) -> Row:
        """Return the row of a name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __str__(self) -> str:
        cells = [_COLUMNS, *map(_cells, self.rows)]
        return table(cells, right=range(2, len(_COLUMNS)))

    def figure(self) -> Figure:
        """Draw deviations by depth, with the theory's prediction dashed, and histograms.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from winit_fast.diagnosis.figures import propagation_figure

        return propagation_figure(self.rows)

    def save(self, path: str | Path, title: str = "Propagation") -> None:
        """Write the figure (.png, .svg), or a report in one file (.html).

        Parameters
        ----------
        path : str or os.PathLike
        title : str
            Of the report.
        """
        from winit_fast.diagnosis.figures import save

        save(self.figure, path_argument("path", path), title, self.as_html())

    def as_html(self) -> str:
        """Return the table as HTML."""
        lines = ["".join(f"<th>{name}</th>" for name in _COLUMNS)]
        lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
                  for row in self.rows]  # fmt: skip
        return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.type,
        number(row.mean),
        number(row.deviation),
        *("-" if share is None else f"{100 * share:.3g}%" for share in (row.dead, row.saturated)),
        *map(number, (row.gradient, row.largest, row.smallest)),
    )
