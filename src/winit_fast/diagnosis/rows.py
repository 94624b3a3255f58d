"""One measured output of a network: a row of the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LAYER, ACTIVATION, NORM = "layer", "activation", "norm"


@dataclass(frozen=True)
class Row:
    """The output of one layer, activation or normalisation.

    Attributes
    ----------
    name : str
        The module's name; "fc1 > relu" for a function that is called after it. A module that runs
        a second time has "#2" after its name.
    kind : {"layer", "activation", "norm"}
        A layer has a weight of at least two axes, or several.
    type : str
        The class of the module, or the function.
    mean, deviation : float
        Of all elements of the output.
    dead : float or None
        Of an activation: the share of units that are 0 for the whole batch.
    samples : int
        How many elements each unit has, over the batch and all positions.
    saturated : float or None
        Of a bounded activation: the share of elements within 1 % of a bound.
    gradient : float or None
        The deviation of the gradient with respect to the output; None if there is none.
    largest, smallest : float or None
        Of a layer: bounds of its weight's extreme singular values.
    weight : float or None
        Of a layer: the root mean square of its weight.
    bias : float
        That of its bias.
    fan_in, fan_out : int
    before : str or None
        The row whose output is the input here, through functions that only reshape or drop; "" is
        the batch. None if it is another tensor, such as a sum.
    is_output : bool
        Whether the module returns this output.
    activation : str or None
        Of an activation: its name in `winit_fast.diagnosis.theory`, if it has one.
    param : float or None
        The activation's parameter.
    histogram : tuple of int
        Counts of elements in 60 equal bins from -3 to 3 deviations around the mean. Of a large
        output, 16,384 to 32,767 elements at equal distances are counted.
    """

    name: str
    kind: str
    type: str
    mean: float
    deviation: float
    dead: float | None = None
    saturated: float | None = None
    gradient: float | None = None
    largest: float | None = None
    smallest: float | None = None
    weight: float | None = None
    bias: float = 0.0
    fan_in: int = 0
    fan_out: int = 0
    before: str | None = None
    is_output: bool = False
    samples: int = 0
    activation: str | None = None
    param: float | None = None
    histogram: tuple[int, ...] = ()

    @property
    def mean_square(self) -> float:
        """The mean square of the output's elements."""
        return self.mean**2 + self.deviation**2


def of_layers(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the rows of layers, without activations and normalisations."""
    return tuple(row for row in rows if row.kind == LAYER)
