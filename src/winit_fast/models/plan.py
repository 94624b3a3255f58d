"""Plans: the tensors of a model, each with its scheme, as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from winit_fast.base import dtypes, safetensors
from winit_fast.base.arguments import path as path_argument
from winit_fast.base.arrays import Array
from winit_fast.base.files import regular_file
from winit_fast.base.names import excerpt, located, one_of, tied, unknown
from winit_fast.base.patterns import Matcher
from winit_fast.initializers.fans import JAX, TORCH, Convention
from winit_fast.initializers.protocol import Initializer
from winit_fast.initializers.registry import get
from winit_fast.models import plan_json
from winit_fast.models.application import apply
from winit_fast.models.float8 import on_products, scales_by_weight
from winit_fast.models.plan_table import table
from winit_fast.models.rule_list import RuleList
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import Seed, seed_number

if TYPE_CHECKING:
    from winit_fast.base.formulas import Number

Rule = Initializer | str | Mapping[str, Any] | Callable[..., Initializer | str]

_AXES: dict[str, Convention] = {"torch": TORCH, "jax": JAX, "keras": JAX}


class Plan(Sequence[TensorSpec]):
    """A model's tensors in order, each with its scheme. A plan and a seed determine all values.

    A plan is an immutable value: plans can be compared, printed and written to files. No framework
    is needed.

    Parameters
    ----------
    tensors : iterable of TensorSpec

    Raises
    ------
    TypeError, ValueError
        If an item is not a TensorSpec, or a name occurs twice.

    Examples
    --------
    >>> import winit_fast as wf
    >>> from winit_fast.models import TensorSpec
    >>> plan = wf.Plan([
    ...     TensorSpec("up.weight", (64, 256), wf.RandomNormal(0, 0.02)),
    ...     TensorSpec("up.bias", (256,), wf.Zeros()),
    ... ])
    >>> plan
    Plan of 2 tensors, 16,640 elements
    >>> arrays = dict(plan.with_rules({"*.bias": wf.Constant(1)}).arrays(seed=0))
    >>> float(arrays["up.bias"][0])
    1.0
    >>> wf.Plan.from_json(plan.to_json()) == plan
    True
    """

    __slots__ = ("_names", "_tensors")

    def __init__(self, tensors: Iterable[TensorSpec]) -> None:
        try:
            self._tensors = tuple(tensors)
        except TypeError:
            raise TypeError(
                f"tensors must be a sequence of TensorSpec objects, got {tensors!r}"
            ) from None
        self._names: dict[str, int] = {}
        for place, tensor in enumerate(self._tensors):
            if not isinstance(tensor, TensorSpec):
                raise TypeError(f"tensors must hold TensorSpec objects, got {tensor!r}")
            for name in (tensor.name, *tensor.tied):
                if self._names.setdefault(name, place) != place:
                    raise ValueError(f"tensor name {name!r} is used twice")

    # ------------------------------------------------------------------------------- a sequence

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self._tensors)

    @overload
    def __getitem__(self, key: int | str) -> TensorSpec: ...

    @overload
    def __getitem__(self, key: slice) -> Plan: ...

    def __getitem__(self, key: int | str | slice) -> TensorSpec | Plan:
        """Return a tensor by position or by any of its names, or a part of the plan by slice."""
        if isinstance(key, str):
            if key not in self._names:
                raise KeyError(unknown("tensor", key, self._names))
            return self._tensors[self._names[key]]
        found = self._tensors[key]
        return Plan(found) if isinstance(found, tuple) else found

    def __contains__(self, key: object) -> bool:
        """Return whether a name or a tensor is in the plan."""
        return key in self._names if isinstance(key, str) else key in self._tensors

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self._tensors == other._tensors

    def __hash__(self) -> int:
        return hash(self._tensors)

    def __repr__(self) -> str:
        return f"Plan of {len(self):,} tensors, {self.size:,} elements"

    def __str__(self) -> str:
        return table(self._tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, without the further names of tied tensors."""
        return tuple(tensor.name for tensor in self._tensors)

    @property
    def size(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.size for tensor in self._tensors)

    # ---------------------------------------------------------------------------- other plans

    def matching(self, *patterns: str) -> Plan:
        """Return a plan of only the tensors whose name matches at least one pattern.

        Parameters
        ----------
        *patterns : str
            ``*`` stands for any text, ``{i}`` for a number.

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            If a pattern matches nothing.
        """
        matcher = Matcher((pattern, None) for pattern in patterns)
        self._refuse_idle(matcher, "patterns")
        return Plan(tensor for tensor in self if matcher.find(tensor.name) is not None)

    def with_rules(
        self,
        rules: Mapping[str, Rule] | RuleList | str,
        *,
        axes: str | None = None,
        numbers: Mapping[str, Number] | None = None,
    ) -> Plan:
        """Return a plan in which tensors have other schemes.

        The scheme of a float8 weight with scales is that of their product; the scales follow from
        it, and patterns do not match them.

        Parameters
        ----------
        rules : mapping of str to rule, winit_fast.models.Rules or str
            A mapping changes the tensors that match a pattern, as in `matching`. The first pattern
            that matches counts, but the exact name of a tensor takes precedence over all patterns.
            A rule is an initializer, a name or a configuration that `winit_fast.get` accepts, or a
            function that takes the numbers of the pattern as keyword arguments. Rules of a whole
            model, such as those of `winit_fast.models.rule_names` by their names, must match every
            tensor.
        axes : {"torch", "jax", "keras"}, optional
            For a mapping: the convention for the input and output axes of the weights. Required if
            a scheme depends on these axes and does not set them itself.
        numbers : mapping of str to (int or float), optional
            For the rules of a whole model: more numbers for their formulas. ``layers`` and
            ``width`` replace those that follow from the tensors, for a plan that is a part of a
            model.

        Returns
        -------
        Plan

        Raises
        ------
        TypeError, ValueError
            If a pattern matches nothing, a rule is invalid or does not fit its tensor, or ``axes``
            is missing.

        Examples
        --------
        >>> import winit_fast as wf
        >>> from winit_fast.models import Architecture, Rules
        >>> plan = Rules.load("gpt2").tensors(Architecture.load("gpt2"))
        >>> rule = {"h.{i}.attn.c_proj.weight": lambda i: wf.RandomNormal(0, 0.02 / (i + 1))}
        >>> plan.with_rules(rule)["h.3.attn.c_proj.weight"].initializer
        RandomNormal(stddev=0.005)
        >>> plan.with_rules("small_init")["wte.weight"].initializer == wf.RandomNormal(
        ...     0, (2 / (5 * 768)) ** 0.5
        ... )
        True
        """
        if isinstance(rules, str):
            rules = RuleList.load(rules)
        if not isinstance(rules, Mapping):
            if not isinstance(rules, RuleList):
                raise TypeError(f"rules must be a mapping of patterns to rules, got {rules!r}")
            if axes is not None:
                raise ValueError(f"axes is for a mapping, got {axes!r} for rules {rules.name!r}")
            return Plan(one.tensor for one in apply(rules, self._tensors, numbers))
        if numbers is not None:
            raise ValueError(f"numbers is for rules of a whole model, got {numbers!r}")
        convention = None if axes is None else _AXES[one_of("axes", axes, _AXES)]
        exact = Matcher((text, rule) for text, rule in rules.items() if text in self._names)
        others = Matcher(rules.items())
        follow = {scale.name: name for name, scale in scales_by_weight(self).items()}
        for text in rules:
            if text in follow:
                raise ValueError(
                    f"rules has {text!r}, which follows from {follow[text]!r}: use that name"
                )
        self._refuse_idle(others, "rules", follow)

        def changed(tensor: TensorSpec) -> TensorSpec | None:
            found = exact.find(tensor.name) or others.find(tensor.name)
            if found is None:
                return None
            try:
                scheme = _scheme(found.value, found.numbers)
                scheme = _with_axes(scheme, convention, len(tensor.shape))
                one = replace(tensor, initializer=scheme, drawn_in=None)
            except (TypeError, ValueError) as error:
                where = f"rule {excerpt(found.pattern.text)}, tensor {tensor.name!r}"
                raise located(error, where) from None
            one.check()
            return one

        return Plan(on_products(self, changed))

    def cast(self, dtype: object) -> Plan:
        """Return a plan in which all floating-point tensors are drawn and stored in one dtype.

        Float8 weights with scales, and the scales, stay as they are: their numbers are products.

        Parameters
        ----------
        dtype : str, type or numpy.dtype

        Returns
        -------
        Plan
        """
        kind = dtypes.find(dtype).name
        pairs = scales_by_weight(self)
        kept = {*pairs, *(scale.name for scale in pairs.values())}
        return Plan(
            replace(tensor, dtype=kind, drawn_in=None)
            if tensor.dtype in dtypes.NAMES and tensor.name not in kept
            else tensor
            for tensor in self
        )

    def of_generation(self, generation: int) -> Plan:
        """Return a plan with other random numbers for the same seed.

        Parameters
        ----------
        generation : int
            At least 0, which is the plan as it is first drawn.

        Returns
        -------
        Plan

        Examples
        --------
        >>> import winit_fast as wf
        >>> from winit_fast.models import TensorSpec
        >>> plan = wf.Plan([TensorSpec("w", (3,), wf.RandomNormal())])
        >>> again = plan.of_generation(1)
        >>> again["w"].stream, again.of_generation(0) == plan
        ('w\\x00generation 1', True)
        """
        return Plan([tensor.of_generation(generation) for tensor in self])

    def _refuse_idle(self, matcher: Matcher[Any], argument: str, but: Container[str] = ()) -> None:
        names = tuple(name for name in self.names if name not in but)
        for pattern in matcher.idle(names):
            place = self._names.get(pattern.text)
            if place is not None:
                raise ValueError(tied(argument, pattern.text, pattern.text, self.names[place]))
            raise ValueError(unknown(f"a pattern in {argument}", pattern.text, names))

    # ------------------------------------------------------------------------------------- use

    def check(self) -> None:
        """Check that every scheme supports the shape and the dtype of its tensor.

        Raises
        ------
        TypeError, ValueError
            If a scheme does not; the message names the tensor.
        """
        for tensor in self:
            tensor.check()

    def arrays(
        self, seed: Seed = None, *, num_threads: int | None = None
    ) -> Iterator[tuple[str, Array]]:
        """Make all tensors, one after another.

        Parameters
        ----------
        seed : int, numpy.random.SeedSequence, numpy.random.Generator or None
            None takes a seed from the operating system.
        num_threads : int, optional
            The number of threads changes no bit.

        Yields
        ------
        name : str
            A tied tensor is yielded once, under its first name.
        array : numpy.ndarray

        Raises
        ------
        TypeError, ValueError
            As `check`, before the first tensor is made.
        """
        self.check()
        key = seed_number(seed)
        return ((tensor.name, tensor.array(key, num_threads=num_threads)) for tensor in self)

    def diff(self, other: Plan) -> list[str]:
        """List the differences from another plan.

        Parameters
        ----------
        other : Plan

        Returns
        -------
        list of str
            One line for each difference; empty if the plans are equal.

        Examples
        --------
        >>> import winit_fast as wf
        >>> from winit_fast.models import TensorSpec
        >>> plan = wf.Plan([TensorSpec("w", (3,), wf.Zeros())])
        >>> plan.diff(plan.with_rules({"w": "ones"}))
        ["'w': initializer is Zeros(), the other's Ones()"]
        """
        if not isinstance(other, Plan):
            raise TypeError(f"other must be a Plan, got {other!r}")
        own, others = ({tensor.name: tensor for tensor in plan} for plan in (self, other))
        lines = []
        for name, tensor in own.items():
            if name not in others:
                lines.append(f"{name!r}: missing in the other plan")
            elif tensor != others[name]:
                lines += _differences(tensor, others[name])
        lines += [f"{name!r}: only the other has it" for name in others if name not in own]
        if not lines and self.names != other.names:
            lines.append("the order of the tensors differs")
        return lines

    # ----------------------------------------------------------------------------------- files

    def to_json(self) -> str:
        """Return the plan as JSON, with one line for each tensor.

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If a scheme cannot be written; the message names the tensor. Schemes that hold arrays
            need `save`.
        """
        return plan_json.text(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Make a plan from the text that `to_json` returns.

        Parameters
        ----------
        text : str

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            If the text is not a plan.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {excerpt(text)}")
        return cls._read(text.encode(), "the text is not a plan of this version", None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to a file, and the arrays of its schemes to a second file beside it.

        Parameters
        ----------
        path : path
            Must end in .json. The file of the arrays, if there are any, ends in .safetensors
            instead.

        Raises
        ------
        ValueError
            If a scheme cannot be written; the message names the tensor.
        """
        file, beside = _files(path)
        stored: dict[str, Array] = {}
        text = plan_json.text(self, stored)
        content = safetensors.file_bytes(stored, {})
        if stored:
            beside.write_bytes(content)
        file.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote, or the winit_fast.plan.json of a checkpoint.

        Parameters
        ----------
        path : path

        Returns
        -------
        Plan

        Raises
        ------
        ValueError
            If the file is not a plan, or the arrays beside it are not those of the plan.
        OSError
            If the file cannot be read.
        """
        file, beside = _files(path)
        with regular_file(str(file)) as opened:
            content = opened.read()
        stored = safetensors.read_arrays(str(beside)) if beside.exists() else {}
        return cls._read(content, f"{file} is not a plan of this version", stored)

    @classmethod
    def _read(cls, content: bytes, fault: str, stored: Mapping[str, Array] | None) -> Self:
        tensors = plan_json.read(content, fault, stored)
        for tensor in tensors:
            if isinstance(tensor.initializer, plan_json.NotWritten):
                raise ValueError(f"{fault}: it could not store the scheme of {tensor.name!r}")
        return cls(tensors)


def _scheme(rule: Any, numbers: Mapping[str, int]) -> Initializer:
    if callable(rule) and not isinstance(rule, Initializer):
        rule = rule(**numbers)
    return get(rule)


def _with_axes(scheme: Initializer, convention: Convention | None, ndim: int) -> Initializer:
    """Set the axes that a scheme leaves open; raise if they matter and no convention is given."""
    said = scheme.with_axes(convention or TORCH, ndim)
    if convention is None and said != scheme and ndim > 1:
        raise ValueError(
            f"{scheme!r} leaves open which axes are in and out: give axes='torch', 'jax' or "
            "'keras', or the scheme's own parameters"
        )
    return said


def _differences(own: TensorSpec, other: TensorSpec) -> list[str]:
    return [
        f"{own.name!r}: {field.name} is {_shown(getattr(own, field.name))}, "
        f"the other's {_shown(getattr(other, field.name))}"
        for field in fields(TensorSpec)
        if getattr(own, field.name) != getattr(other, field.name)
    ]


def _shown(value: object) -> str:
    return excerpt(value, 200)


def _files(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    file = Path(path_argument("path", path))
    if file.suffix != ".json":
        raise ValueError(f"path must end in .json, got {str(file)!r}")
    return file, file.with_suffix(".safetensors")
