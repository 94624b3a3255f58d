"""Rules applied to the tensors of a model: the rule of each one, and the scheme that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from winit_fast.base.formulas import Number
from winit_fast.base.names import unknown
from winit_fast.base.patterns import Matcher, Pattern
from winit_fast.initializers.constants import Zeros
from winit_fast.initializers.parts import Part, Parts
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.models.data_files import load_all
from winit_fast.models.float8 import on_products, scales_by_weight
from winit_fast.models.naming import Layout
from winit_fast.models.roles import NUMBERS, OF_THE_MODEL, Assigned, Section, assign
from winit_fast.models.rule import OWN, Rule, words
from winit_fast.models.rule_list import RuleList, make
from winit_fast.models.tensor_spec import PARAMETER, TensorSpec
from winit_fast.models.unset import Unset

_FEW = 5
"""Most names of tensors in an error message."""

Chosen = Sequence[tuple[Rule, dict[str, int]] | None]
"""The rule of each section of a tensor, with the numbers that its pattern found.

None for a section that keeps its scheme.
"""


class Applied(NamedTuple):
    """A tensor with the scheme that rules give it.

    Attributes
    ----------
    tensor : TensorSpec
    rule : Rule or None
        None if the tensor keeps its own scheme, or several rules apply to its sections.
    template : str
        Its name, with ``{i}`` in place of each number that the rule's formulas use.
    """

    tensor: TensorSpec
    rule: Rule | None
    template: str


def apply(
    rules: RuleList,
    tensors: Sequence[TensorSpec],
    numbers: Mapping[str, Number] | None = None,
    model: str = "the plan",
) -> list[Applied]:
    """Give the tensors of a model the schemes of rules: see `winit_fast.models.Rules.applied`."""
    for name in numbers or ():
        if name in NUMBERS and name not in OF_THE_MODEL:
            raise ValueError(f"numbers must be those of the whole model, got {name!r}")
    follow = {scale.name for scale in scales_by_weight(tensors).values()}
    bare = [tensor for tensor in tensors if tensor.name not in follow]
    applied = _apply_to_bare(rules, bare, dict(numbers or {}), model)
    found = {one.tensor.name: one for one in applied}
    if not follow:
        return list(found.values())
    before = {tensor.name: tensor for tensor in bare}

    def changed(tensor: TensorSpec) -> TensorSpec | None:
        one = found[tensor.name].tensor
        if one is before[tensor.name]:
            return None
        return replace(tensor, initializer=one.initializer, drawn_in=None)

    return [
        found.get(tensor.name, Applied(tensor, None, tensor.name))._replace(tensor=tensor)
        for tensor in on_products(tensors, changed)
    ]


def _apply_to_bare(
    rules: RuleList, tensors: Sequence[TensorSpec], given: Mapping[str, Number], model: str
) -> list[Applied]:
    """Apply the rules to tensors, without the scales of float8 weights."""
    if rules.needs:
        listed = ", ".join(rules.needs)
        raise ValueError(f"rules {rules.name!r} need the setting {listed}, which is not given")
    roles = assign(tensors, given) if any(rule.roles for rule in rules.rules) else {}
    present = {own.role for one in roles.values() if one is not None for own in one.sections}
    for role in rules.requires:
        if role not in present:
            raise ValueError(
                f"rules {rules.name!r} need a tensor of its own for the role {role}, which "
                f"{model} has not; they are for {rules.applies_to}"
            )
    choice = _Choice(rules.rules)
    chosen = [
        (tensor, roles.get(tensor.name), choice.of(tensor, roles.get(tensor.name)))
        for tensor in tensors
    ]
    missing = [(tensor, role) for tensor, role, own in chosen if own is None]
    if missing:
        raise _missing(rules, missing, len(chosen), model)
    _refuse_idle(rules, choice.used, [tensor.name for tensor in tensors], model)
    return [
        _apply_to_one(rules, tensor, role, own, given)
        for tensor, role, own in chosen
        if own is not None
    ]


def model_numbers(
    rules: RuleList, tensors: Sequence[TensorSpec], numbers: Mapping[str, Number]
) -> dict[str, Number]:
    """Return the numbers of the whole model that follow from its tensors: layers and width."""
    if not any(rule.roles for rule in rules.rules):
        return {}
    shared: dict[str, Number] = {}
    for one in assign(tensors, numbers).values():
        if one is not None:
            own = {name: n for name, n in one.numbers.items() if name in OF_THE_MODEL}
            shared = {**shared, **own}
    return shared


def _missing(
    rules: RuleList, missing: list[tuple[TensorSpec, Assigned | None]], count: int, model: str
) -> ValueError:
    """Make the error for tensors that no rule matches."""
    shown = [tensor.name for tensor, _ in missing[:_FEW]]
    if any(rule.roles for rule in rules.rules):
        shown = [f"{tensor.name} ({_role(role)})" for tensor, role in missing[:_FEW]]
    more = ", ..." if len(missing) > _FEW else ""
    fitting = f"; they are for {rules.applies_to}" if rules.applies_to else ""
    return ValueError(
        f"rules {rules.name!r} have no rule for {len(missing):,} of {count:,} tensors "
        f"of {model}: {', '.join(shown)}{more}{fitting}"
    )


def _refuse_idle(rules: RuleList, used: set[int], names: list[str], model: str) -> None:
    """Refuse a rule that applies to nothing; built-in ones of roles fit many models."""
    fits_many = rules.name in load_all("rules")
    for place, rule in enumerate(rules.rules[: len(rules.rules) - rules.inherited]):
        if rule.optional or place in used:
            continue
        if rule.pattern is None:
            if fits_many:
                continue
            raise ValueError(
                f"rule {rule.shown} of {rules.name!r} applies to no tensor of {model}; with "
                "optional = true it need not"
            )
        if any(rule.match(name) is not None for name in names):
            raise ValueError(
                f"rule {rule.pattern!r} of {rules.name!r} applies to no tensor of "
                f"{model}: earlier rules apply to all tensors that it matches"
            )
        problem = unknown(f"rule {rule.pattern!r} of {rules.name!r}", rule.pattern, names)
        raise ValueError(f"a rule matches no tensor of {model}: {problem}")


def _apply_to_one(
    rules: RuleList,
    tensor: TensorSpec,
    role: Assigned | None,
    own: Chosen,
    given: Mapping[str, Number],
) -> Applied:
    """Give one tensor its scheme. ``own`` has the rule of each section, or of the whole."""
    first = own[0] if own else None
    if first is None:  # it keeps its scheme
        return Applied(tensor, None, tensor.name)
    rule, found = first
    owned = [one is not None and one[0].initializer == OWN for one in own]
    if any(owned) and not all(owned):
        raise ValueError(
            f"rules {rules.name!r} keep a section of tensor {tensor.name!r} ({_role(role)}) as "
            "it is, and change another: give all sections a rule"
        )
    if rule.initializer == OWN or (rule.keep and _is_known(tensor)):
        return Applied(tensor, None, tensor.name)
    if rule.pattern is not None and len(own) == 1:
        scheme = make(rules, rule, tensor.name, {**given, **rules.settings, **found})
        template = Pattern(rule.pattern).template(tensor.name)
        return Applied(replace(tensor, initializer=scheme, drawn_in=None), rule, template)
    assert role is not None
    schemes = []
    for section, one in zip(role.sections, own, strict=True):
        assert one is not None
        numbers = {**given, **rules.settings, **role.numbers, **section.numbers, **one[1]}
        made = make(rules, one[0], tensor.name, numbers)
        schemes.append(_with_layout(made, role.layout, tensor))
    scheme = _joined(tensor, role.sections, schemes)
    is_one = not isinstance(scheme, Parts)
    kept = _with_own_parts(tensor, scheme, role)
    template = role.template if _uses_layer(rule) else tensor.name
    changed = replace(tensor, initializer=kept, drawn_in=None)
    return Applied(changed, rule if is_one and kept is scheme else None, template)


class _Choice:
    """Finds the rule of each tensor: the first whose pattern of names or roles matches.

    Attributes
    ----------
    used : set of int
        The positions of the rules that apply to a tensor.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._by_name = Matcher(
            (pattern, place)
            for place, rule in enumerate(rules)
            if rule.pattern is not None
            for pattern in rule.compiled
        )
        self._by_role: dict[tuple[str, str | None], int | None] = {}
        self.used: set[int] = set()

    def of(self, tensor: TensorSpec, role: Assigned | None) -> Chosen | None:
        """Return the rule of each section; ``[None]`` if the tensor keeps its scheme."""
        chosen = self._chosen(tensor, role)
        is_own = any(one is not None and one[0].initializer == OWN for one in chosen or ())
        return None if is_own and isinstance(tensor.initializer, Unset) else chosen

    def _chosen(self, tensor: TensorSpec, role: Assigned | None) -> Chosen | None:
        by_name = self._by_name.find(tensor.name)
        name_place = len(self._rules) if by_name is None else by_name.value
        places = [] if role is None else [self._of_role(one, role.stack) for one in role.sections]
        first = min((place for place in places if place is not None), default=len(self._rules))
        if by_name is not None and (name_place < first or None in places):
            self.used.add(name_place)
            return [(self._rules[name_place], by_name.numbers)]
        if places and None not in places:
            chosen = [place for place in places if place is not None]
            self.used.update(chosen)
            return [(self._rules[place], {}) for place in chosen]
        is_kept = tensor.kind != PARAMETER or role is None
        return [None] if is_kept and _is_known(tensor) else None

    def _of_role(self, section: Section, stack: str | None) -> int | None:
        """Find the rule of a role, or of several that are one tensor, if it is the same."""
        found = {self._of_single_role(role, stack) for role in section.role.split(" | ")}
        return found.pop() if len(found) == 1 else None

    def _of_single_role(self, role: str, stack: str | None) -> int | None:
        key = role, stack
        if key not in self._by_role:
            fitting = (
                place
                for place, rule in enumerate(self._rules)
                if rule.roles
                and rule.stack in (None, stack or "only")
                and rule.match(role) is not None
            )
            self._by_role[key] = next(fitting, None)
        return self._by_role[key]


def _is_known(tensor: TensorSpec) -> bool:
    """Return whether a tensor has a scheme of known values."""
    return tensor.initializer.is_exact and not isinstance(tensor.initializer, Unset)


def _role(assigned: Assigned | None) -> str:
    if assigned is None:
        return "no known role"
    roles = " | ".join(section.role for section in assigned.sections)
    return roles if assigned.stack is None else f"{roles}, of the {assigned.stack}"


def _uses_layer(rule: Rule) -> bool:
    return any(
        isinstance(value, str) and "layer" in words(value) for value in rule.parameters.values()
    )


def _with_layout(scheme: Initializer, layout: Layout, tensor: TensorSpec) -> Initializer:
    """Set the axes that a scheme leaves open to those of the model's layers."""
    if layout.batch and getattr(scheme, "batch_axis", None) == ():
        scheme = replace(scheme, batch_axis=tuple(range(layout.batch)))  # type: ignore[type-var]
    return scheme.with_axes(layout.axes, len(tensor.shape))


def _joined(
    tensor: TensorSpec, sections: Sequence[Section], schemes: Sequence[Initializer]
) -> Initializer:
    """Make one scheme of those of a tensor's sections."""
    alike = all(scheme == schemes[0] for scheme in schemes)
    is_elementwise = isinstance(schemes[0], Elementwise) or schemes[0].is_exact
    if len(sections) == 1 or (alike and is_elementwise and not _has_fans(schemes[0])):
        if " | " in sections[0].role and (_has_fans(schemes[0]) or not is_elementwise):
            raise ValueError(
                f"tensor {tensor.name!r} is fused ({sections[0].role}), and its scheme needs the "
                "sections: give the numbers of the model's configuration"
            )
        return schemes[0]
    boxes = [
        (starts, stops, scheme)
        for section, scheme in zip(sections, schemes, strict=True)
        for starts, stops in section.boxes
    ]
    return Parts(sorted(boxes, key=lambda box: box[0]))


def _has_fans(scheme: Initializer) -> bool:
    """Return whether a scheme follows from the shape of its tensor."""
    return hasattr(scheme, "fan_in")


def _with_own_parts(tensor: TensorSpec, scheme: Initializer, role: Assigned) -> Initializer:
    """Keep parts of the model's own plan: those with own streams, and a padding row of zeros."""
    own = tensor.initializer
    if not isinstance(own, Parts) or isinstance(scheme, Parts):
        return scheme
    parts: Sequence[Part] = own.parts
    if all(part.stream is not None for part in parts):
        return Parts([part._replace(initializer=scheme) for part in parts])
    if role.sections[0].role.startswith(("embedding", "position")):
        zeros = [part for part in parts if part.initializer == Zeros()]
        whole = Part((0,) * len(tensor.shape), tensor.shape, scheme)
        return Parts([whole, *zeros]) if zeros else scheme
    return scheme
