"""Rules: patterns of tensor names or roles, each with the initializer for what matches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import winit_fast.initializers as initializers
from winit_fast.base.arguments import finite, path
from winit_fast.base.formulas import Number, evaluate
from winit_fast.base.names import excerpt, located, one_of, spelling, unknown
from winit_fast.base.patterns import Found, Matcher, Pattern
from winit_fast.initializers.constants import Zeros
from winit_fast.initializers.expression import Expression
from winit_fast.initializers.parts import Part, Parts
from winit_fast.initializers.protocol import Elementwise, Initializer
from winit_fast.initializers.registry import find
from winit_fast.models.architectures import Architecture
from winit_fast.models.data_files import load_all, naming_the_file, parse
from winit_fast.models.float8 import on_products, scales_by_weight
from winit_fast.models.naming import Layout, known_roles
from winit_fast.models.plan import Plan
from winit_fast.models.roles import NUMBERS, OF_THE_MODEL, Assigned, Section, assign
from winit_fast.models.tensor_spec import BUFFER, PARAMETER, TensorSpec
from winit_fast.models.unset import Unset

_MAX_FILE = 1 << 20
"""Most bytes of a file of rules: a larger file is something else."""

_FEW = 5
"""Most names of tensors in an error message."""

_STACKS = ("encoder", "decoder", "only")

OWN = "own"
"""In the place of an initializer: what the model's own code does."""

_WORD = re.compile(r"[^\W\d]\w*")


def rule_names() -> list[str]:
    """Names of all built-in sets of rules."""
    return list(load_all("rules"))


@dataclass(frozen=True)
class Rule:
    """One rule: an initializer for the tensors whose names, or whose roles, match a pattern.

    Parameters
    ----------
    pattern : str or None
        See ``winit_fast.base.patterns.Pattern``: ``*`` matches any text; ``{i}``, with any name in
        braces, matches a whole number, which the formulas may use under that name, for example if
        they depend on the depth of a layer. None for a rule of roles.
    initializer : str
        A name that `winit_fast.get` accepts; or "own", with which the tensors keep the schemes that
        the model's own code gives them.
    parameters : mapping of str to (int, float, str, …)
        Arguments of the initializer. A str is a formula of the model's numbers, unless the
        argument takes text, as ``distribution`` does.
    roles : sequence of str
        Patterns of roles, such as ``attention.*``. The role of a bias ends in ".bias"; only a
        pattern that ends so matches it.
    stack : {"encoder", "decoder", "only"}, optional
        A rule of roles is then only for tensors of the encoder or the decoder of a model that has
        both, or only for a model that does not.
    keep : bool
        Whether a tensor that the model's own code sets to a known value, such as 1, keeps it.
    optional : bool
        Whether the rule may apply to no tensor. That is an error else, except for built-in rules of
        roles, which are for many models.

    Raises
    ------
    ValueError
        If a pattern is invalid, or fits no role.
    TypeError
        If an argument has the wrong type.
    """

    pattern: str | None
    initializer: str
    parameters: Mapping[str, Any]
    roles: Sequence[str] = ()
    stack: str | None = None
    keep: bool = False
    optional: bool = False
    compiled: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_role = self.pattern is None
        object.__setattr__(self, "roles", _strings("roles", self.roles))
        if by_role != bool(self.roles):
            raise ValueError("a rule must have either a pattern of names or roles")
        for argument, kind in (("pattern", str), ("initializer", str), ("parameters", Mapping)):
            value = getattr(self, argument)
            if not isinstance(value, kind) and not (by_role and argument == "pattern"):
                raise TypeError(f"{argument} must be a {kind.__name__}, got {excerpt(value)}")
        for argument in ("keep", "optional"):
            if not isinstance(getattr(self, argument), bool):
                shown = excerpt(getattr(self, argument))
                raise TypeError(f"{argument} must be a bool, got {shown}")
        if self.stack is not None:
            one_of("stack", self.stack, _STACKS)
            if not by_role:
                raise ValueError(f"stack is for rules of roles, got {self.stack!r}")
        if self.initializer == OWN and self.parameters:
            raise ValueError(f"{OWN!r} has no parameters, got {excerpt(dict(self.parameters))}")
        patterns = self.roles if by_role else (self.pattern,)
        compiled = tuple(Pattern(pattern) for pattern in patterns if pattern is not None)
        if by_role:
            known = [name for role in known_roles() for name in (role, f"{role}.bias")]
            for pattern in compiled:
                if all(pattern.match(role) is None for role in known):
                    raise ValueError(unknown("roles", pattern.text, known_roles()))
        object.__setattr__(self, "compiled", compiled)

    def match(self, name: str) -> dict[str, int] | None:
        """Return the numbers that the pattern finds in a name, or None if it does not match.

        Parameters
        ----------
        name : str
            Of a tensor, or a role if the rule is for roles.

        Returns
        -------
        dict of str to int, or None

        Examples
        --------
        >>> Rule("h.{i}.*.bias", "zeros", {}).match("h.12.mlp.c_fc.bias")
        {'i': 12}
        """
        for pattern in self.compiled:
            numbers = pattern.match(name)
            if numbers is not None and not (
                self.roles and _is_bias(name) != _is_bias(pattern.text)
            ):
                return numbers
        return None

    @property
    def shown(self) -> str:
        """What the rule is for, in messages: its pattern, or its roles."""
        if self.pattern is not None:
            return excerpt(self.pattern)
        of = "" if self.stack is None else f" of the {self.stack}"
        return f"{', '.join(self.roles)}{of}"

    def make(self, numbers: Mapping[str, Number]) -> Initializer:
        """Make the initializer.

        Parameters
        ----------
        numbers : mapping of str to int or float
            Those of the architecture, and those that the pattern found.

        Returns
        -------
        Initializer

        Examples
        --------
        >>> Rule("*", "he_normal", {"fan_in": "4 * d", "mode": "fan_in"}).make({"d": 8})
        HeNormal(fan_in=32)
        """
        if self.initializer == OWN:
            raise ValueError(f"{OWN!r} is the scheme of the model's own code, which is not here")
        kind = find(self.initializer)
        hints = _hints(kind)  # type: ignore[arg-type]  # a class has a hash
        parameters = {
            name: value if _takes_text(hints.get(name)) else evaluate(value, numbers)
            for name, value in self.parameters.items()
        }
        if kind is Expression and isinstance(parameters.get("text"), str):
            operands: Any = parameters.get("operands", {})
            known = {name: n for name, n in numbers.items() if name not in operands}
            parameters["text"] = _with_numbers(str(parameters["text"]), known)
        return initializers.get(self.initializer, **parameters)

    def check(self) -> None:
        """Check that the initializer exists and has the parameters.

        Raises
        ------
        ValueError, TypeError
            If not; the message names the most similar one.
        """
        if self.initializer == OWN:
            return
        try:
            kind = find(self.initializer)
        except ValueError as error:
            raise ValueError(
                f"{error} (a scheme of your own is known once its module is imported)"
            ) from None
        known = [one.name for one in fields(kind) if one.init]  # type: ignore[arg-type]
        for name in self.parameters:
            if name not in known:
                raise TypeError(unknown(f"parameters of {self.initializer}", name, known))


def _is_bias(role: str) -> bool:
    return role.endswith("bias")


def _strings(argument: str, value: Any) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(one, str) for one in listed):
        raise TypeError(f"{argument} must be a list of str, got {excerpt(value)}")
    return tuple(listed)


def _known(argument: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one_of(argument, role, known_roles()) for role in roles)


def _words(value: Any) -> set[str]:
    """List the names in formulas, also in those of nested tables.

    Examples
    --------
    >>> sorted(_words({"stddev": "std / sqrt(2 * layers)", "mean": 0.0}))
    ['layers', 'sqrt', 'std']
    """
    if isinstance(value, Mapping):
        return set().union(*map(_words, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_words, value))
    return set(_WORD.findall(value)) if isinstance(value, str) else set()


def _with_numbers(text: str, numbers: Mapping[str, Number]) -> str:
    """Replace the names of numbers in an expression by the numbers.

    Examples
    --------
    >>> _with_numbers("d = exp(x * dt_max); d + dt_min", {"dt_max": 0.1, "dt_min": -1, "d": 3})
    'd = exp(x * 0.1); d + (-1)'
    """
    assigned = set(re.findall(r"([^\W\d]\w*)\s*=", text))

    def number(found: re.Match[str]) -> str:
        if found[0] not in numbers or found[0] in assigned:
            return found[0]
        value = repr(numbers[found[0]])
        return f"({value})" if value.startswith("-") else value

    return _WORD.sub(number, text)


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a class's parameters; none where they cannot be found: all are formulas then."""
    try:
        return get_type_hints(kind)
    except NameError:  # a user's class may use names that it imports only for type checkers
        return {}


def _takes_text(hint: Any) -> bool:
    """Whether an argument of this type is text, and not a number that a formula may compute.

    Examples
    --------
    >>> _takes_text(str), _takes_text(str | None), _takes_text(float | str), _takes_text(int)
    (True, True, False, False)
    """
    kinds = getattr(hint, "__args__", (hint,))
    return str in kinds and not {int, float}.intersection(kinds)


class Applied(NamedTuple):
    """A tensor with the scheme that rules give it.

    Attributes
    ----------
    tensor : TensorSpec
    rule : Rule or None
        None if the tensor keeps its own scheme, or several rules apply to its sections.
    template : str
        Its name, with the numbers that the rule's formulas use in braces.
    """

    tensor: TensorSpec
    rule: Rule | None
    template: str


@dataclass(frozen=True)
class Rules:
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

    name: str
    title: str
    references: tuple[str, ...]
    rules: tuple[Rule, ...]
    applies_to: str = ""
    settings: Mapping[str, Number] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    inherited: int = 0
    requires: tuple[str, ...] = ()
    _matcher: Matcher[Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        matcher = Matcher(
            (pattern, rule)
            for rule in self.rules
            if rule.pattern is not None
            for pattern in rule.compiled
        )
        object.__setattr__(self, "_matcher", matcher)

    @classmethod
    def load(cls, name: str, **settings: float) -> Rules:
        """Load built-in rules.

        Parameters
        ----------
        name : str
            One of `rule_names`. Hyphens and underscores are the same.
        **settings
            As in `with_settings`.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError
            If the name or a setting is not known; the message suggests the most similar one.

        Examples
        --------
        >>> Rules.load("megatron", std=0.006).settings
        {'std': 0.006}
        """
        known = load_all("rules")
        found = None
        if isinstance(name, str):
            found = {spelling(one): one for one in known}.get(spelling(name))
        if found is None:
            raise ValueError(unknown("rules", name, known))
        loaded = cls._read(found, f"rules/{found}.toml", known[found])
        return loaded.with_settings(**settings) if settings else loaded

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> Rules:
        """Read rules from a TOML file.

        Parameters
        ----------
        file : path
            Contains a list ``[[rules]]``, each with ``tensors`` (a pattern of names) or ``roles``,
            ``initializer`` and perhaps ``parameters``, ``stack``, ``keep`` and ``optional``: see
            `winit_fast.models.Rule`.
            ``title``, ``references``, ``applies_to``, ``settings``, ``needs``, ``requires`` and
            ``extends`` (the name of built-in rules, which apply after those of the file) are
            optional too.

        Returns
        -------
        Rules
            Their name is that of the file.

        Raises
        ------
        ValueError
            If the file has another form; the message names the file and the place in it.
        OSError
            If the file cannot be read.
        """
        file = Path(path("file", file))
        if not file.is_file():  # reading a pipe or a device may never end
            raise FileNotFoundError(f"rules must be a file, got {str(file)!r}")
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ValueError(f"{file} is not a file of rules: it has more than {_MAX_FILE:,} bytes")
        return cls._read(file.name, str(file), parse(str(file), content))

    @classmethod
    def _read(
        cls, name: str, shown: str, content: dict[str, Any], after: tuple[str, ...] = ()
    ) -> Rules:
        """Make the rules of a file's content; every error names the file.

        ``after`` has the names of the rules that extend these.
        """
        with naming_the_file(shown):
            optional = {"title", "references", "applies_to", "settings", "needs", "extends"}
            optional.add("requires")
            _only(content, "the file", {*optional, "rules"}, {"rules"})
            texts = {key: content.get(key, "") for key in ("applies_to", "extends")}
            for key, text in {"title": content.get("title", name), **texts}.items():
                if not isinstance(text, str):
                    raise TypeError(f"{key} must be a str, got {excerpt(text)}")
            references = content.get("references", [])
            if not (isinstance(references, list) and all(isinstance(r, str) for r in references)):
                raise TypeError(f"references must be a list of str, got {excerpt(references)}")
            settings = content.get("settings", {})
            if not isinstance(settings, dict):
                raise TypeError(f"settings must be a table of numbers, got {excerpt(settings)}")
            for key, value in settings.items():
                finite(f"setting {key}", value)
            entries = content["rules"]
            if not (isinstance(entries, list) and all(isinstance(e, dict) for e in entries)):
                raise TypeError(f"rules must be tables, [[rules]], got {excerpt(entries)}")
            rules = [_rule(entry, number) for number, entry in enumerate(entries, start=1)]
            needs = _strings("needs", content.get("needs", []))
            more: tuple[Rule, ...] = ()
            if texts["extends"]:
                known = load_all("rules")
                base = one_of("extends", texts["extends"], known)
                if base in (*after, name):
                    raise ValueError(f"extends must be other rules, got {base!r}")
                inner = cls._read(base, f"rules/{base}.toml", known[base], (*after, name))
                more, settings = inner.rules, {**inner.settings, **settings}
                needs = tuple(dict.fromkeys([*needs, *inner.needs]))
            words = {word for rule in (*rules, *more) for word in _words(rule.parameters)}
            for key in (*settings, *needs):
                if key not in words:
                    raise ValueError(f"setting {key} is in no formula of the rules")
            return cls(
                name,
                content.get("title", name),
                tuple(references),
                (*rules, *more),
                texts["applies_to"],
                settings,
                tuple(need for need in needs if need not in settings),
                len(more),
                _known("requires", _strings("requires", content.get("requires", []))),
            )

    def with_settings(self, **settings: float) -> Rules:
        """Return the same rules with other numbers in their formulas.

        Parameters
        ----------
        **settings
            Of the attributes ``settings`` and ``needs``.

        Returns
        -------
        Rules

        Raises
        ------
        ValueError, TypeError
            If a setting is not known, or is no finite number.
        """
        known = [*self.settings, *self.needs]
        for name, value in settings.items():
            if not known:
                raise ValueError(f"rules {self.name!r} have no settings, got {name!r}")
            if name not in known:
                raise ValueError(unknown(f"settings of rules {self.name!r}", name, known))
            finite(f"setting {name}", value)
        needs = tuple(need for need in self.needs if need not in settings)
        return replace(self, settings={**self.settings, **settings}, needs=needs)

    def find(self, tensor: str) -> Found[Rule] | None:
        """Find a rule of names for a tensor, and the numbers in its name.

        Parameters
        ----------
        tensor : str
            Its name.

        Returns
        -------
        Found or None
        """
        return self._matcher.find(tensor)

    def initializer(self, tensor: str, numbers: Mapping[str, Number]) -> Initializer:
        """Make the initializer of one tensor by its name; rules of roles do not count.

        Parameters
        ----------
        tensor : str
            Its name.
        numbers : mapping of str to int or float
            The architecture's numbers. A number that the pattern finds in the tensor's name takes
            precedence over a number with the same name here.

        Returns
        -------
        Initializer

        Raises
        ------
        ValueError
            If no rule matches the name.

        Examples
        --------
        >>> rules = Rules.load("huggingface")
        >>> rules.initializer("model.norm.weight", {"initializer_range": 0.02})
        Ones()
        """
        found = self.find(tensor)
        if found is None:
            raise ValueError(f"rules {self.name!r} have no rule for tensor {excerpt(tensor)}")
        return self._make(found.value, tensor, {**numbers, **self.settings, **found.numbers})

    def _make(self, rule: Rule, tensor: str, numbers: Mapping[str, Number]) -> Initializer:
        try:
            return rule.make(numbers)
        except (TypeError, ValueError) as error:
            where = f"rule {rule.shown} of {self.name!r}, tensor {excerpt(tensor)}"
            raise located(error, where) from None

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
        for name in numbers or ():
            if name in NUMBERS and name not in OF_THE_MODEL:
                raise ValueError(f"numbers must be those of the whole model, got {name!r}")
        follow = {scale.name for scale in scales_by_weight(tensors).values()}
        bare = [tensor for tensor in tensors if tensor.name not in follow]
        found = {one.tensor.name: one for one in self._found(bare, dict(numbers or {}), model)}
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

    def _found(
        self, tensors: Sequence[TensorSpec], given: Mapping[str, Number], model: str
    ) -> list[Applied]:
        """Apply the rules to tensors of which none is scales."""
        if self.needs:
            listed = ", ".join(self.needs)
            raise ValueError(f"rules {self.name!r} need the setting {listed}, which is not given")
        roles = assign(tensors, given) if any(rule.roles for rule in self.rules) else {}
        present = {own.role for one in roles.values() if one is not None for own in one.sections}
        for role in self.requires:
            if role not in present:
                raise ValueError(
                    f"rules {self.name!r} need a tensor of its own for the role {role}, which "
                    f"{model} has not; they are for {self.applies_to}"
                )
        choice = _Choice(self.rules)
        chosen = [
            (tensor, roles.get(tensor.name), choice.of(tensor, roles.get(tensor.name)))
            for tensor in tensors
        ]
        missing = [(tensor, role) for tensor, role, own in chosen if own is None]
        if missing:
            raise self._missing(missing, len(chosen), model)
        self._refuse_idle(choice.used, [tensor.name for tensor in tensors], model)
        return [
            self._applied(tensor, role, own, given)
            for tensor, role, own in chosen
            if own is not None
        ]

    def model_numbers(
        self, tensors: Sequence[TensorSpec], numbers: Mapping[str, Number]
    ) -> dict[str, Number]:
        """Return the numbers of the whole model that follow from its tensors: layers and width."""
        if not any(rule.roles for rule in self.rules):
            return {}
        shared: dict[str, Number] = {}
        for one in assign(tensors, numbers).values():
            if one is not None:
                own = {name: n for name, n in one.numbers.items() if name in OF_THE_MODEL}
                shared = {**shared, **own}
        return shared

    def _missing(
        self, missing: list[tuple[TensorSpec, Assigned | None]], count: int, model: str
    ) -> ValueError:
        """Make the error for tensors that no rule matches."""
        shown = [tensor.name for tensor, _ in missing[:_FEW]]
        if any(rule.roles for rule in self.rules):
            shown = [f"{tensor.name} ({_role(role)})" for tensor, role in missing[:_FEW]]
        more = ", ..." if len(missing) > _FEW else ""
        fitting = f"; they are for {self.applies_to}" if self.applies_to else ""
        return ValueError(
            f"rules {self.name!r} have no rule for {len(missing):,} of {count:,} tensors "
            f"of {model}: {', '.join(shown)}{more}{fitting}"
        )

    def _refuse_idle(self, used: set[int], names: list[str], model: str) -> None:
        """Refuse a rule that applies to nothing; built-in ones of roles fit many models."""
        fits_many = self.name in load_all("rules")
        for place, rule in enumerate(self.rules[: len(self.rules) - self.inherited]):
            if rule.optional or place in used:
                continue
            if rule.pattern is None:
                if fits_many:
                    continue
                raise ValueError(
                    f"rule {rule.shown} of {self.name!r} applies to no tensor of {model}; with "
                    "optional = true it need not"
                )
            if any(rule.match(name) is not None for name in names):
                raise ValueError(
                    f"rule {rule.pattern!r} of {self.name!r} applies to no tensor of "
                    f"{model}: earlier rules apply to all tensors that it matches"
                )
            problem = unknown(f"rule {rule.pattern!r} of {self.name!r}", rule.pattern, names)
            raise ValueError(f"a rule matches no tensor of {model}: {problem}")

    def _applied(
        self,
        tensor: TensorSpec,
        role: Assigned | None,
        own: Sequence[tuple[Rule, dict[str, int]] | None],
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
                f"rules {self.name!r} keep a part of tensor {tensor.name!r} ({_role(role)}) as "
                "it is, and change another: give all parts a rule"
            )
        if rule.initializer == OWN or (rule.keep and _is_known(tensor)):
            return Applied(tensor, None, tensor.name)
        if rule.pattern is not None and len(own) == 1:
            scheme = self._make(rule, tensor.name, {**given, **self.settings, **found})
            template = Pattern(rule.pattern).template(tensor.name)
            return Applied(replace(tensor, initializer=scheme, drawn_in=None), rule, template)
        assert role is not None
        schemes = []
        for section, one in zip(role.sections, own, strict=True):
            assert one is not None
            numbers = {**given, **self.settings, **role.numbers, **section.numbers, **one[1]}
            made = self._make(one[0], tensor.name, numbers)
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

    def of(
        self, tensor: TensorSpec, role: Assigned | None
    ) -> Sequence[tuple[Rule, dict[str, int]] | None] | None:
        """Return the rule of each section; ``[None]`` if the tensor keeps its scheme."""
        chosen = self._chosen(tensor, role)
        is_own = any(one is not None and one[0].initializer == OWN for one in chosen or ())
        return None if is_own and isinstance(tensor.initializer, Unset) else chosen

    def _chosen(
        self, tensor: TensorSpec, role: Assigned | None
    ) -> Sequence[tuple[Rule, dict[str, int]] | None] | None:
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
        found = {self._of_one(role, stack) for role in section.role.split(" | ")}
        return found.pop() if len(found) == 1 else None

    def _of_one(self, role: str, stack: str | None) -> int | None:
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
        isinstance(value, str) and "layer" in _WORD.findall(value)
        for value in rule.parameters.values()
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
                "parts: give the numbers of the model's configuration"
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
    """Keep what the model's own plan says of parts: their own streams, a padding row of zeros."""
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


def _rule(entry: Mapping[str, Any], number: int) -> Rule:
    """Make one rule of a file; an error names its number."""
    names = {"tensors", "initializer", "parameters", "roles", "stack", "keep", "optional"}
    _only(entry, f"rule {number}", names, {"initializer"})
    if ("tensors" in entry) == ("roles" in entry):
        both = "both 'tensors' and 'roles'" if "tensors" in entry else "no 'tensors' or 'roles'"
        raise ValueError(f"rule {number} has {both}")
    try:
        rule = Rule(
            entry.get("tensors"),
            entry["initializer"],
            entry.get("parameters", {}),
            entry.get("roles", ()),
            entry.get("stack"),
            entry.get("keep", False),
            entry.get("optional", False),
        )
        rule.check()
    except (TypeError, ValueError) as error:
        raise ValueError(f"rule {number}: {error}") from None
    return rule


def _only(table: Mapping[str, Any], where: str, allowed: set[str], needed: set[str]) -> None:
    """Refuse a table that has unknown keys or lacks a required one."""
    for key in table:
        if key not in allowed:
            raise ValueError(unknown(f"keys of {where}", key, sorted(allowed)))
    for key in sorted(needed):
        if key not in table:
            raise ValueError(f"{where} has no {key!r}")
