"""Whole models over the devices of all processes: every process makes only its own shards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from winit_fast.base import dtypes, threads
from winit_fast.base.arrays import Array
from winit_fast.base.boxes import Box
from winit_fast.base.names import excerpt, located, unknown
from winit_fast.base.patterns import Matcher
from winit_fast.initializers.protocol import Filler, Initializer
from winit_fast.jax.arrays import canonical, from_boxes
from winit_fast.jax.callbacks import traced
from winit_fast.jax.keys import seed_and_stream, words_of
from winit_fast.jax.rearranged import Rearranged
from winit_fast.jax.trees import Leaf, leaves
from winit_fast.models.plan import Plan, Rule
from winit_fast.models.tensor_spec import TensorSpec
from winit_fast.streams.identity import seed_number

Source = str | Rearranged | Sequence[str | Rearranged]
"""Where a leaf's values come from: a tensor, one in another layout, or several in a row."""

Names = Mapping[str, Source] | Callable[[str], Source]


def sharded(
    tree: Any,
    shardings: Any,
    *,
    rules: Mapping[str, Rule] | Plan | None = None,
    seed: Any,
    names: Names | None = None,
    num_threads: int | None = None,
) -> Any:
    """Make a model's arrays, sharded over devices: each process makes its own shards only.

    Nothing is compiled, the processes do not communicate, and a shard is the only memory that its
    making needs. The values do not depend on the shardings.

    Parameters
    ----------
    tree : pytree or winit_fast.Plan
        A tree of shapes, as from `jax.eval_shape` or ``nnx.eval_shape``; values of arrays in it are
        not used. Or a plan, whose tensors are then made as they are.
    shardings : pytree of jax.sharding.Sharding or jax.sharding.PartitionSpec
        One for the whole tree, or a tree of them that is a prefix of ``tree``, as
        ``nnx.get_partition_spec`` returns. A PartitionSpec refers to the mesh of `jax.set_mesh`.
        With a plan: one sharding, or a mapping from patterns of names to shardings.
    rules : mapping of str to rule, or winit_fast.Plan
        The schemes. Either patterns of names, as in `winit_fast.Plan.with_rules` with
        ``axes="jax"``; or a plan, such as one recorded from a module of PyTorch.
    seed : int, jax.Array, numpy.random.SeedSequence or numpy.random.Generator
        Must be given, and must be the same in all processes. A JAX key of 64 bits is the seed that
        it is in `winit_fast.jax.he_normal`.
    names : mapping of str to name, or callable, optional
        By a leaf's name, the name of its tensor; by default they are the same. With a plan as
        ``rules``, also a `Rearranged`, or a sequence of names or Rearranged that are stacked along
        the leaf's first axis.
    num_threads : int, optional
        `winit_fast.get_num_threads` by default. It changes no bit.

    Returns
    -------
    pytree or dict
        The tree with a `jax.Array` in each leaf; leaves that hold anything else than floating-point
        or complex numbers are returned as given. For a plan, a dict of arrays by name.

    Raises
    ------
    TypeError, ValueError
        Before the first array is made. Among the reasons: no seed; a leaf without a scheme; a
        pattern that matches nothing; a leaf that is not floating-point and has no values, as the
        RngState keys in ``nnx.eval_shape``; an axis that its sharding does not divide evenly.

    Notes
    -----
    The name of a leaf is its path, joined by slashes: ``params/Dense_0/kernel`` in Flax linen,
    ``layers/0/kernel`` in Flax nnx, ``mlp/~/linear_0/w`` in Haiku, ``layers/0/weight`` in Equinox.

    Examples
    --------
    >>> import winit_fast as wf
    >>> mesh = jax.make_mesh((jax.device_count(),), ("model",))
    >>> shapes = {"up": {"kernel": jax.ShapeDtypeStruct((64, 256), "bfloat16")}}
    >>> shardings = NamedSharding(mesh, PartitionSpec(None, "model"))
    >>> rules = {"*/kernel": wf.LecunNormal()}
    >>> made = sharded(shapes, shardings, rules=rules, seed=0)
    >>> same = wf.LecunNormal()((64, 256), seed=0, name="up/kernel", dtype="bfloat16")
    >>> bool((np.asarray(made["up"]["kernel"]) == same).all())
    True

    A plan whose weights are (outputs, inputs), in JAX's layout:

    >>> from winit_fast.models import TensorSpec
    >>> plan = wf.Plan([TensorSpec("up.weight", (256, 64), wf.RandomNormal(), dtype="bfloat16")])
    >>> names = {"up/kernel": Rearranged("up.weight", "o i -> i o")}
    >>> made = sharded(shapes, shardings, rules=plan, seed=0, names=names)
    >>> bool((np.asarray(made["up"]["kernel"]) == plan["up.weight"].array(seed=0).T).all())
    True
    """
    if traced(None):
        raise TypeError("sharded makes arrays on the host: call it outside of jit and eval_shape")
    key, num_threads = _seed(seed), threads.checked(num_threads)
    if isinstance(tree, Plan):
        for argument, value in (("rules", rules), ("names", names)):
            if value is not None:
                raise TypeError(
                    f"{argument} must be None for a plan, whose tensors are made as they are, "
                    f"got {excerpt(value)}; for other layouts give the tree of shapes, and the "
                    "plan as rules"
                )
        return _arrays(_of_plan(tree, shardings, key), num_threads)
    listed, structure = leaves(tree), jax.tree_util.tree_structure(tree)
    over = _prefixed(shardings, tree)
    wanted = [leaf for leaf in listed if _is_made(leaf)]
    sources = _sources(wanted, names)
    if isinstance(rules, Plan):
        fillers = _planned(wanted, sources, rules, key)
    else:
        fillers = _ruled(wanted, sources, rules, key)
    made = [
        _Made(leaf.name, leaf.value.shape, _kind(leaf.value.dtype), each, fillers[leaf.name])
        for leaf, each in zip(listed, over, strict=True)
        if leaf.name in fillers
    ]
    arrays = _arrays(made, num_threads)
    return jax.tree_util.tree_unflatten(
        structure, [arrays.get(leaf.name, leaf.value) for leaf in listed]
    )


@dataclass
class _Made:
    """An array to make."""

    name: str
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    sharding: Any
    fill: Filler

    def check(self) -> None:
        """Raise an error that names the leaf if its sharding cannot be used."""
        if isinstance(self.sharding, PartitionSpec):
            mesh = jax.sharding.get_mesh()
            if mesh.empty:
                raise ValueError(
                    f"shardings has a PartitionSpec for {self.name!r}, {self.sharding!r}, and no "
                    "mesh is set: call this under jax.set_mesh(mesh), or give NamedShardings"
                )
            self.sharding = NamedSharding(mesh, self.sharding)
        if not isinstance(self.sharding, Sharding) or isinstance(
            getattr(self.sharding, "mesh", None), jax.sharding.AbstractMesh
        ):
            raise TypeError(
                f"shardings must hold shardings over devices, got {self.sharding!r} "
                f"for {self.name!r}"
            )
        if len(getattr(self.sharding, "spec", ())) > len(self.shape):
            raise ValueError(
                f"shardings, at {self.name!r}: {self.sharding.spec!r} has more axes than "
                f"shape {self.shape}"
            )
        try:
            self.sharding.shard_shape(self.shape)
        except ValueError as error:  # an axis that is not divided evenly
            raise ValueError(f"shardings, at {self.name!r}: {error}") from None

    def array(self, num_threads: int | None) -> jax.Array:
        def fill(out: Array, cut: Box) -> None:
            self.fill(out, cut, num_threads)

        return from_boxes(self.shape, self.sharding, self.kind, fill)


def _arrays(made: list[_Made], num_threads: int | None) -> dict[str, jax.Array]:
    for each in made:
        each.check()
    return {each.name: each.array(num_threads) for each in made}


def _of_plan(plan: Plan, shardings: Any, seed: int) -> list[_Made]:
    """List the arrays of a plan."""
    return [
        _Made(tensor.name, tensor.shape, _kind(tensor.dtype), each, tensor.filler(seed))
        for tensor, each in zip(map(_native, plan), _by_name(plan.names, shardings), strict=True)
    ]


def _seed(seed: Any) -> int:
    """Convert a seed or a JAX key; None would be another seed in every process."""
    if seed is None:
        raise ValueError("seed must be given, and be the same in all processes, got None")
    words = words_of(seed) if not isinstance(seed, np.random.Generator) else None
    if words is None:
        return seed_number(seed)
    key, stream = seed_and_stream(words)
    if stream:
        raise ValueError(
            f"seed must be a key of 64 bits, as names take the place of the others, got {seed!r}: "
            "give an int, or a key of jax.random.key(n, impl='threefry2x32')"
        )
    return key


def _is_made(leaf: Leaf) -> bool:
    """Whether a leaf is an array to make, and not one that is returned as given."""
    if not leaf.is_array:
        return False
    dtype = leaf.value.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):  # keys
        if leaf.has_values:
            return False
        raise TypeError(
            f"tree must have no {dtype} without values, got one as {leaf.name!r}: split the tree "
            "(nnx.split(model, nnx.RngState, ...)), or put the key there"
        )
    if np.dtype(dtype) in dtypes.WITH_COMPLEX:
        return True
    if leaf.has_values:
        return False
    if np.dtype(dtype) not in dtypes.ALL:
        raise TypeError(
            f"tree must have arrays of types known to winit_fast, got {dtype} as {leaf.name!r}"
        )
    return True


def _kind(dtype: Any) -> np.dtype[Any]:
    """Convert a dtype to the one that JAX makes of it."""
    kind = dtypes.find_any(dtype)
    if kind == np.float64:
        return canonical(kind)
    found: np.dtype[Any] = jax.dtypes.canonicalize_dtype(kind)
    return found


def _native(tensor: TensorSpec) -> TensorSpec:
    """Give a tensor the dtype that JAX makes of its own."""
    kind = dtypes.find_any(_kind(tensor.dtype)).name
    changed = tensor if kind == tensor.dtype else replace(tensor, dtype=kind, drawn_in=None)
    changed.check()
    return changed


def _prefixed(shardings: Any, tree: Any) -> list[Any]:
    """Return the sharding of each leaf."""

    def is_sharding(node: Any) -> bool:
        return isinstance(node, (Sharding, PartitionSpec)) or node is None

    spread: list[Any] = []

    def add(sharding: Any, part: Any) -> None:
        spread.extend([sharding] * jax.tree_util.tree_structure(part).num_leaves)

    try:
        jax.tree.map(add, shardings, tree, is_leaf=is_sharding)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "shardings must be one sharding, or a tree of them that is a prefix of the tree: "
            f"{error}"
        ) from None
    return spread


def _by_name(names: Sequence[str], shardings: Any) -> list[Any]:
    """Return the sharding of each tensor of a plan."""
    if not isinstance(shardings, Mapping):
        return [shardings] * len(names)
    matcher = Matcher(shardings.items())
    for pattern in matcher.idle(names):
        raise ValueError(unknown("a pattern in shardings", pattern.text, names))
    found = [matcher.find(name) for name in names]
    for name, each in zip(names, found, strict=True):
        if each is None:
            raise ValueError(f"shardings must have one for every tensor, got none for {name!r}")
    return [each.value for each in found if each is not None]


def _sources(wanted: list[Leaf], names: Names | None) -> dict[str, Source]:
    """Find the tensor of each leaf."""
    own = [leaf.name for leaf in wanted]
    if names is None:
        return {name: name for name in own}
    if isinstance(names, Mapping):
        known = set(own)
        for name in names:
            if name not in known:
                raise ValueError(unknown("names", name, own))
        found = {name: names.get(name, name) for name in own}
    elif callable(names):
        found = {name: names(name) for name in own}
    else:
        raise TypeError(f"names must be a mapping or a function, got {names!r}")
    for name, source in found.items():
        entries = source if isinstance(source, (list, tuple)) else [source]
        if not entries or not all(isinstance(entry, (str, Rearranged)) for entry in entries):
            raise TypeError(
                f"names must give a name, a Rearranged or a sequence of them, got {source!r} "
                f"for {name!r}"
            )
    return found


@dataclass(frozen=True, repr=False)
class _NoScheme(Initializer):
    """Stands for the scheme of a leaf that no rule has matched yet."""


def _ruled(
    wanted: list[Leaf], sources: dict[str, Source], rules: Mapping[str, Rule] | None, seed: int
) -> dict[str, Filler]:
    """Return the filler of each leaf, by patterns of names."""
    if rules is None:
        raise ValueError(
            "rules must be given for a tree of shapes, which has no schemes, got None: a mapping "
            "such as {'*/kernel': wf.LecunNormal(), '*': 'zeros'}, or a plan"
        )
    for pattern, rule in rules.items() if isinstance(rules, Mapping) else ():
        if getattr(rule, "__module__", "").startswith(("jax.", "winit_fast.jax.")):
            raise TypeError(
                f"rules[{pattern!r}] must be a scheme of winit_fast, such as "
                "wf.LecunNormal(distribution='truncated_normal'), got a function of JAX's form, "
                "init(key, shape)"
            )
    tensors = []
    for leaf in wanted:
        source = sources[leaf.name]
        if not isinstance(source, str):
            raise TypeError(
                f"names must give a name where rules is no plan, got {source!r} for {leaf.name!r}"
            )
        kind = dtypes.find_any(_kind(leaf.value.dtype)).name
        tensors.append(TensorSpec(source, leaf.value.shape, _NoScheme(), dtype=kind))
    if not isinstance(rules, Mapping):
        raise TypeError(f"rules must be a mapping of patterns to rules, or a plan, got {rules!r}")
    plan = Plan(tensors).with_rules(rules, axes="jax")
    for leaf, tensor in zip(wanted, plan, strict=True):
        if isinstance(tensor.initializer, _NoScheme):
            raise ValueError(f"rules have none for {leaf.name!r}: give a pattern that matches it")
    return {leaf.name: tensor.filler(seed) for leaf, tensor in zip(wanted, plan, strict=True)}


def _planned(
    wanted: list[Leaf], sources: dict[str, Source], plan: Plan, seed: int
) -> dict[str, Filler]:
    """Return the filler of each leaf, from the tensors of a plan."""
    fillers = {}
    for leaf in wanted:
        source, shape = sources[leaf.name], tuple(leaf.value.shape)
        kind = dtypes.find_any(_kind(leaf.value.dtype)).name
        try:
            if isinstance(source, (str, Rearranged)):
                fillers[leaf.name] = _from_plan(plan, source, shape, kind, seed)
                continue
            if shape[:1] != (len(source),):
                raise ValueError(f"names has {len(source)} tensors to stack, got shape {shape}")
            stacked = [_from_plan(plan, each, shape[1:], kind, seed) for each in source]
            fillers[leaf.name] = _stacked(stacked)
        except (TypeError, ValueError) as error:
            raise located(error, f"leaf {leaf.name!r}") from None
    return fillers


def _from_plan(
    plan: Plan, source: str | Rearranged, shape: tuple[int, ...], kind: str, seed: int
) -> Filler:
    name = source if isinstance(source, str) else source.tensor
    try:
        tensor = plan[name]
    except KeyError as error:
        raise ValueError(f"of the plan, {error.args[0]}") from None
    if tensor.dtype != kind:
        if tensor.dtype not in dtypes.NAMES or kind not in dtypes.NAMES:
            raise TypeError(f"it is {kind}, but tensor {name!r} of the plan is {tensor.dtype}")
        tensor = replace(tensor, dtype=kind, drawn_in=None)
    tensor.check()
    fill = tensor.filler(seed)
    if isinstance(source, Rearranged):
        return source.filler(tensor.shape, shape, fill)
    if tensor.shape != shape:
        raise ValueError(
            f"it has shape {shape}, but tensor {name!r} of the plan has {tensor.shape}: "
            "names= can give a Rearranged"
        )
    return fill


def _stacked(fillers: list[Filler]) -> Filler:
    """Fill tensors that are stacked along a new first axis."""

    def fill(out: Array, cut: Box, num_threads: int | None) -> None:
        first, axes = cut.starts[0], tuple(range(len(cut.tensor) - 1))
        for row in range(cut.sizes[0]):
            own = Box(cut.tensor[1:], cut.starts[1:], cut.sizes[1:], axes)
            fillers[first + row](out[row], own, num_threads)

    return fill
