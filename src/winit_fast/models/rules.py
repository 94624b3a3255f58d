"""Rules for whole models: the lists of rules, with what they make of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from winit_fast.base.formulas import Number
from winit_fast.models.application import Applied, apply, model_numbers
from winit_fast.models.architectures import Architecture
from winit_fast.models.plan import Plan
from winit_fast.models.rule_list import RuleList
from winit_fast.models.tensor_spec import BUFFER, PARAMETER, TensorSpec
from winit_fast.models.unset import Unset


class Rules(RuleList):
    """An ordered list of rules for a whole model; the first rule that matches a tensor applies.

    Attributes
    ----------
    name : str
    title : str
        Description in one line.
    references : tuple of str
        Where they come from.
    rules : tuple of Rule
    applies_to : str
        Which models they are for.
    settings : mapping of str to int or float
        Numbers that the formulas use and that can be changed: see `with_settings`.
    needs : tuple of str
        Settings that have no default.
    inherited : int
        How many of the rules, the last ones, are those of other rules that these extend.
    requires : tuple of str
        Roles that some tensor must have.
    """

    def tensors(self, architecture: Architecture) -> Plan:
        """List the tensors of a model with their initializers, in the model's order.

        Parameters
        ----------
        architecture : Architecture

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            If no rule matches a tensor, or a rule applies to no tensor.
        """
        return Plan(one.tensor for one in self.applied_to_architecture(architecture))

    def applied_to_architecture(self, architecture: Architecture) -> list[Applied]:
        """Apply the rules to the tensors of a built-in model: see `applied`."""
        bare = [
            TensorSpec(
                name,
                shape,
                Unset(),
                dtype=architecture.buffers.get(name, "float32"),
                kind=BUFFER if name in architecture.buffers else PARAMETER,
            )
            for name, shape in architecture.shapes.items()
        ]
        return self.applied(bare, architecture.numbers, architecture.name)

    def applied(
        self,
        tensors: Sequence[TensorSpec],
        numbers: Mapping[str, Number] | None = None,
        model: str = "the plan",
    ) -> list[Applied]:
        """Give the tensors of a model the schemes of the rules.

        The scheme of a float8 weight with scales is that of their product; the scales follow from
        it.

        Parameters
        ----------
        tensors : sequence of TensorSpec
        numbers : mapping of str to int or float, optional
            More numbers for the formulas, such as those of the model's configuration. ``layers``
            and ``width`` replace the numbers that follow from the tensors' names and shapes.
        model : str
            What errors call the model.

        Returns
        -------
        list of Applied
            In the order of the tensors.

        Raises
        ------
        ValueError
            If no rule matches a tensor, a rule applies to none, a formula has no value, a setting
            that the rules need is not given, or numbers has what each tensor has of its own.
        """
        return apply(self, tensors, numbers, model)

    def model_numbers(
        self, tensors: Sequence[TensorSpec], numbers: Mapping[str, Number]
    ) -> dict[str, Number]:
        """Return the numbers of the whole model that follow from its tensors: layers and width."""
        return model_numbers(self, tensors, numbers)
