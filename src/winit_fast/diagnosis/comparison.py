"""Several schemes side by side, and the sizes of coordinates at several widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from winit_fast.base.arguments import path as path_argument
from winit_fast.base.tables import table
from winit_fast.diagnosis.report import Propagation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.float64]]


class Comparison(dict[str, Propagation]):
    """What was measured with each scheme, by its name."""

    def __str__(self) -> str:
        return "\n\n".join(f"{name}\n{found}" for name, found in self.items())

    def figure(self) -> Figure:
        """Draw the deviations by depth of all schemes, forward and backward; the theory's dashed.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from winit_fast.diagnosis.figures import comparison_figure

        return comparison_figure({name: one.rows for name, one in self.items()})

    def save(self, path: str | Path, title: str = "Comparison") -> None:
        """Write the figure (.png, .svg), or a report in one file (.html).

        Parameters
        ----------
        path : str or os.PathLike
        title : str
            Of the report.
        """
        import html

        from winit_fast.diagnosis.figures import save

        tables = [f"<h2>{html.escape(name)}</h2>\n{one.as_html()}" for name, one in self.items()]
        save(self.figure, path_argument("path", path), title, "".join(tables))


@dataclass(frozen=True)
class CoordinateCheck:
    """What `winit_fast.diagnosis.coordinate_check` has measured.

    Attributes
    ----------
    widths : tuple of int
    sizes : dict of str to numpy.ndarray
        For every layer the mean magnitude of its output's elements, by width and step; step 0 is
        before training.
    changes : dict of str to numpy.ndarray
        For every layer the mean magnitude of the change of its output since step 0.
    """

    widths: tuple[int, ...]
    sizes: Mapping[str, Array]
    changes: Mapping[str, Array]

    def slopes(self, step: int = -1) -> dict[str, float]:
        """Return for every layer the power of the width with which its change grows.

        Parameters
        ----------
        step : int
            After how many steps; by default the last.

        Returns
        -------
        dict of str to float
            About 0 where the rules of muP are followed, up to 1 where they are not.
        """
        x = np.log(self.widths)
        x = x - x.mean()
        with np.errstate(divide="ignore"):
            return {
                name: float(x @ np.log(values[:, step]) / (x @ x))
                for name, values in self.changes.items()
            }

    def __str__(self) -> str:
        rows = [("layer", *map(str, self.widths), "slope")]
        slopes = self.slopes()
        for name, values in self.changes.items():
            rows.append((name, *(f"{one:.3g}" for one in values[:, -1]), f"{slopes[name]:+.2f}"))
        return table(rows, right=range(1, len(rows[0])))

    def figure(self) -> Figure:
        """Draw the mean size of every layer's output by width, one line for each step.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from winit_fast.diagnosis.figures import coordinate_figure

        return coordinate_figure(self.widths, self.sizes)

    def save(self, path: str | Path, title: str = "Coordinate check") -> None:
        """Write the figure (.png, .svg), or a report in one file (.html).

        Parameters
        ----------
        path : str or os.PathLike
        title : str
            Of the report.
        """
        import html

        from winit_fast.diagnosis.figures import save

        table = f"<pre>{html.escape(str(self))}</pre>\n"
        save(self.figure, path_argument("path", path), title, table)
