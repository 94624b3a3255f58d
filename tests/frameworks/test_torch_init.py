"""winit_fast.torch against torch.nn.init: parameters, distributions, errors, warnings, memory."""

import inspect
import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.base import dtypes
from winit_fast.torch import memory

theirs = torch.nn.init
NAN, INF = math.nan, math.inf
TYPES = [getattr(torch, name) for name in dtypes.NAMES]
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SHAPES = [(3, 5), (64, 3, 7, 7), (10, 1), (1, 10), (7, 4, 3), (2, 3, 2, 3, 2), (128, 40)]
RANDOM = {
    "uniform_": {"a": -0.5, "b": 2.0},
    "normal_": {"mean": 0.5, "std": 2.0},
    "trunc_normal_": {"mean": 0.25, "std": 0.5, "a": -0.5, "b": 1.5},
    "xavier_uniform_": {"gain": 1.5},
    "xavier_normal_": {"gain": 1.5},
    "kaiming_uniform_": {"a": 0.2, "mode": "fan_out"},
    "kaiming_normal_": {"nonlinearity": "relu"},
    "orthogonal_": {"gain": 1.5},
    "sparse_": {"sparsity": 0.3, "std": 0.1},
}


ELEMENTWISE = [name for name in RANDOM if name not in ("orthogonal_", "sparse_")]


def words(tensor):
    """Return the bits of a tensor."""
    return tensor.detach().contiguous().view(WORDS[tensor.itemsize])


def wide(tensor):
    """Return the values in a type that torch can compare."""
    return tensor.to(torch.complex128)


def same(first, second):
    return first.dtype == second.dtype and torch.equal(words(first), words(second))


class Recorder(TorchDispatchMode):
    """Record what torch's own functions ask of its kernels."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        defaults = {"normal_": (0.0, 1.0), "uniform_": (0.0, 1.0)}
        name = func._opname
        if name in defaults:
            given = args[1:]
            self.asked.append((name.rstrip("_"), *given, *defaults[name][len(given) :]))
        return func(*args, **(kwargs or {}))


def test_every_name_and_signature():
    for name in theirs.__all__:
        own = getattr(ours, name)
        assert name in ours.__all__
        expected = list(inspect.signature(getattr(theirs, name)).parameters.values())
        got = list(inspect.signature(own).parameters.values())
        if own is getattr(theirs, name) or expected[0].kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        for mine, other in zip(got, expected, strict=False):
            assert (mine.name, mine.default, mine.kind) == (other.name, other.default, other.kind)
        extra = [(p.name, p.kind, p.default) for p in got[len(expected) :]]
        keyword = inspect.Parameter.KEYWORD_ONLY
        random = "generator" in inspect.signature(own).parameters
        assert extra == ([("seed", keyword, None), ("name", keyword, None)] if random else [])


CLOSED_FORMS = [
    ("uniform_", {}),
    ("uniform_", {"a": -3, "b": 0.1}),
    ("normal_", {}),
    ("normal_", {"mean": 3, "std": 0.1}),
    ("xavier_uniform_", {}),
    ("xavier_uniform_", {"gain": math.sqrt(2)}),
    ("xavier_normal_", {}),
    ("xavier_normal_", {"gain": 5 / 3}),
    *(
        (scheme, arguments)
        for scheme in ("kaiming_uniform_", "kaiming_normal_")
        for arguments in (
            {},
            {"a": math.sqrt(5)},
            {"mode": "fan_out"},
            {"mode": "FAN_IN", "nonlinearity": "relu"},
            {"a": 1, "mode": "fan_out", "nonlinearity": "leaky_relu"},
            {"nonlinearity": "tanh"},
            {"nonlinearity": "selu"},
            {"nonlinearity": "conv_transpose2d"},
        )
    ),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("scheme", "arguments"), CLOSED_FORMS, ids=str)
def test_parameters_are_those_of_torch(scheme, arguments, shape):
    """The bits are those of the stream with exactly the parameters that torch passes on."""
    with Recorder() as recorder:
        getattr(theirs, scheme)(torch.empty(shape), **arguments)
    [(kind, *parameters)] = recorder.asked
    for dtype in ("float32", "float64"):
        got = torch.empty(shape, dtype=getattr(torch, dtype))
        assert getattr(ours, scheme)(got, **arguments, seed=7, name="fc") is got
        expected = getattr(wf.Stream(7, "fc"), kind)(*parameters, shape, dtype=dtype)
        np.testing.assert_array_equal(got.numpy(), expected)


def closed_form(scheme, shape):
    """The distribution of one element of the cases of RANDOM."""
    fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
    xavier = 1.5 * math.sqrt(2 / (fan_in + fan_out))
    slope = math.sqrt(3) * math.sqrt(2 / (1 + 0.2**2)) / math.sqrt(fan_out)
    return {
        "uniform_": stats.uniform(-0.5, 2.5),
        "normal_": stats.norm(0.5, 2.0),
        "trunc_normal_": stats.truncnorm(-1.5, 2.5, 0.25, 0.5),
        "xavier_uniform_": stats.uniform(-math.sqrt(3) * xavier, 2 * math.sqrt(3) * xavier),
        "xavier_normal_": stats.norm(0, xavier),
        "kaiming_uniform_": stats.uniform(-slope, 2 * slope),
        "kaiming_normal_": stats.norm(0, math.sqrt(2 / fan_in)),
    }[scheme]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(200, 300), (60, 50, 5, 4)], ids=str)
@pytest.mark.parametrize(
    "scheme", [name for name in RANDOM if name not in ("orthogonal_", "sparse_")]
)
def test_distributions(scheme, shape, dtype):
    """Kolmogorov-Smirnov: a false alarm in 10^4 seeds, and the seed is fixed."""
    torch.manual_seed(5)
    tensor = getattr(ours, scheme)(torch.empty(shape, dtype=dtype), **RANDOM[scheme])
    assert stats.kstest(tensor.flatten().double(), closed_form(scheme, shape).cdf).pvalue > 1e-4
    other = getattr(theirs, scheme)(torch.empty(shape, dtype=dtype), **RANDOM[scheme])
    assert stats.ks_2samp(tensor.flatten(), other.flatten()).pvalue > 1e-4


@pytest.mark.parametrize(
    "bounds",
    [(0.0, 1.0, -2.0, 2.0), (0.0, 0.02, -2.0, 2.0), (0.0, 0.02, -0.06, 0.06), (0.3, 0.1, 0.1, 0.35),
     (0.0, 1.0, -INF, 0.5), (1.0, 3.0, 0.1, 0.3), (0.0, 1.0, 1.5, 4.0), (-5.0, 1.1, -8.3, 7.7)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_bounds_of_trunc_normal_are_absolute_and_hold(bounds, dtype):
    mean, std, a, b = bounds
    tensor = ours.trunc_normal_(torch.empty(200, 100, dtype=dtype), *bounds, seed=3).double()
    assert a <= tensor.min() and tensor.max() <= b
    if dtype == torch.float64:  # a false alarm in 10^4 seeds; the seed is fixed
        law = stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)
        assert stats.kstest(tensor.flatten(), law.cdf).pvalue > 1e-4


def test_a_bound_that_rounding_would_pass():
    """(b - mean) / std * std + mean may exceed b after rounding; the numbers do not."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        mean, std, width = generator.uniform(0.1, 1, 3)
        a = mean - width * std
        b = a + 30 * np.spacing(width * std)  # so close to a that some number lies on the bound
        tensor = torch.empty(200, dtype=torch.float64)
        for centre, low, high in ((mean, a, b), (-mean, -b, -a)):
            ours.trunc_normal_(tensor, centre, std, low, high, seed=1)
            assert low <= tensor.min() and tensor.max() <= high


@pytest.mark.parametrize("shape", [(16, 16), (40, 7), (7, 40), (8, 4, 3, 3), (30, 2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_orthogonal(shape, dtype):
    tensor = ours.orthogonal_(torch.empty(shape, dtype=dtype), gain=2.0, seed=1)
    q = tensor.double().flatten(1) / 2
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    tolerance = 40 * torch.finfo(dtype).eps
    assert (gram - torch.eye(len(gram))).abs().max() < tolerance
    expected = wf.Orthogonal(2.0, column_axis=0).fill(torch.empty(shape, dtype=dtype), seed=1)
    assert same(tensor, expected)


@pytest.mark.parametrize("dtype", [*TYPES, torch.int32, torch.complex64], ids=str)
def test_deterministic_ones_are_equal(dtype):
    for name, arguments in (("eye_", ()), ("ones_", ()), ("zeros_", ()), ("constant_", (3,))):
        for shape in ((3, 5), (5, 3)):
            got = getattr(ours, name)(torch.empty(shape, dtype=dtype), *arguments)
            expected = getattr(theirs, name)(torch.empty(shape, dtype=dtype), *arguments)
            assert got.dtype == dtype and torch.equal(
                got.to(torch.complex64), expected.to(torch.complex64)
            )
    for shape in ((4, 3, 3), (6, 2, 4, 5), (4, 8, 1, 2, 3), (2, 2, 1), (6, 0, 3), (0, 3, 3)):
        for groups in (1, 2, -2):
            got = ours.dirac_(torch.empty(shape, dtype=dtype), groups)
            expected = theirs.dirac_(torch.empty(shape, dtype=dtype), groups)
            assert torch.equal(wide(got), wide(expected))
    assert ours.calculate_gain is theirs.calculate_gain


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("scheme", RANDOM)
def test_layouts(scheme, dtype):
    """The same bits for any strides; gaps stay unchanged, and the tensor itself is returned."""
    rows, columns = 37, 53
    fill = getattr(ours, scheme)
    expected = fill(torch.empty(rows, columns, dtype=dtype), **RANDOM[scheme], seed=2, name="w")
    gaps = torch.zeros((3 * rows, 2 * columns), dtype=dtype)
    for tensor in (
        torch.zeros((columns, rows), dtype=dtype).T,
        gaps[1::3, ::2],
        torch.zeros(rows * columns + 1, dtype=dtype)[1:].view(rows, columns),
        torch.nn.Parameter(torch.zeros((rows, columns), dtype=dtype)),
    ):
        version = tensor._version
        assert fill(tensor, **RANDOM[scheme], seed=2, name="w") is tensor
        assert same(tensor, expected)
        assert tensor._version > version  # autograd notices the change by the version
        assert tensor.grad_fn is None
    assert not words(gaps[::3]).any() and not words(gaps[:, 1::2]).any()


def test_channels_last():
    tensor = torch.empty(8, 4, 3, 3).to(memory_format=torch.channels_last)
    expected = ours.kaiming_normal_(torch.empty(8, 4, 3, 3), seed=1)
    assert same(ours.kaiming_normal_(tensor, seed=1), expected)


@pytest.mark.parametrize("scheme", RANDOM)
def test_large(scheme):
    """Large enough that several threads fill it."""
    shape = (300, 700)
    got = getattr(ours, scheme)(torch.empty(shape), **RANDOM[scheme], seed=2)
    again = getattr(ours, scheme)(torch.empty((700, 300)).T, **RANDOM[scheme], seed=2)
    assert same(got, again)


@pytest.mark.parametrize("scheme", RANDOM)
def test_generators(scheme):
    def draw(**keywords):
        tensor = torch.empty(20, 30)
        return getattr(ours, scheme)(tensor, **RANDOM[scheme], **keywords)

    torch.manual_seed(1)
    first, second = draw(), draw()
    torch.manual_seed(1)
    assert same(first, draw()) and same(second, draw())
    assert not same(first, second)

    generator = torch.Generator().manual_seed(1)
    state = torch.random.get_rng_state()
    assert same(first, draw(generator=generator)) and same(second, draw(generator=generator))
    frozen = draw(seed=1, name="fc")
    assert same(frozen, draw(seed=1, name="fc")) and not same(frozen, draw(seed=1, name="fd"))
    assert not same(frozen, draw(seed=2, name="fc"))
    assert torch.equal(state, torch.random.get_rng_state())  # torch's own generator was not used

    torch.manual_seed(1)
    named = draw(name="fc")
    torch.manual_seed(1)
    assert same(named, draw(name="fc")) and not same(named, first)
    with pytest.raises(ValueError, match="generator= or seed="):
        draw(seed=1, generator=generator)


def test_every_bit_of_a_key_varies():
    torch.manual_seed(0)
    keys = np.array([ours.seeding.draw_word() for _ in range(200)], np.uint64)
    for bit in range(64):  # 200 fair coin flips: all equal with probability 2^-199
        assert 0 < (keys >> np.uint64(bit) & np.uint64(1)).sum() < 200


def test_threads_draw_each_for_itself():
    torch.manual_seed(0)
    made = []

    def work():
        made.extend(ours.normal_(torch.empty(8)) for _ in range(50))

    team = [threading.Thread(target=work) for _ in range(4)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert len({tuple(tensor.tolist()) for tensor in made}) == 200


def scheme_only(value):
    """Name a case by its scheme and a number, because printed tensors differ from run to run."""
    return value if isinstance(value, str) else None


E = torch.empty
BAD = [
    ("uniform_", (E(3), 2.0, 1.0)),
    ("uniform_", (E(0), 2.0, 1.0)),
    ("uniform_", (E(3), 0.0, INF)),
    ("uniform_", (E(3), NAN, 1.0)),
    ("uniform_", (E(3), -1e39, 1e39)),
    ("uniform_", (E(3), "a", 1.0)),
    ("uniform_", (E(3), "0", 1.0)),
    ("uniform_", (E(3), None, 1.0)),
    ("uniform_", (E(3), torch.ones(2), 1.0)),
    ("uniform_", (E(3, dtype=torch.int32),)),
    ("uniform_", ([1.0],)),
    ("uniform_", (E(1, 3).expand(3, 3),)),
    ("uniform_", (E(3, 3).to_sparse(),)),
    ("normal_", (E(3), 0.0, -1.0)),
    ("normal_", (E(3), 0.0, NAN)),
    ("normal_", (E(3), "0", 1.0)),
    ("normal_", (E(3), 0.0, 1.0, 5)),
    ("normal_", (E(3, dtype=torch.int64),)),
    ("normal_", (E(1, 3).expand(3, 3),)),
    ("normal_", (None,)),
    ("trunc_normal_", (E(3), 0.0, 0.0)),
    ("trunc_normal_", (E(3), 0.0, 1.0, 2.0, 1.0)),
    ("trunc_normal_", (E(3), 0.0, 1.0, NAN, 1.0)),
    ("trunc_normal_", (E(3), "0")),
    ("trunc_normal_", (E(3, dtype=torch.int32),)),
    ("xavier_uniform_", (E(3),)),
    ("xavier_uniform_", (E(()),)),
    ("xavier_uniform_", (E(3, 3), -1.0)),
    ("xavier_uniform_", (E(3, 3), "1")),
    ("xavier_uniform_", (E(0, 0),)),
    ("xavier_normal_", (E(3),)),
    ("xavier_normal_", (E(3, 3), -1.0)),
    ("xavier_normal_", (E(3, 3), NAN)),
    ("xavier_normal_", (E(0, 0),)),
    ("xavier_normal_", ("tensor",)),
    *(
        (scheme, arguments)
        for scheme in ("kaiming_uniform_", "kaiming_normal_")
        for arguments in (
            (E(3),),
            (E(()),),
            (E(3, 3), NAN),
            (E(3, 3), "0"),
            (E(3, 3), True),
            (E(3, 3), [0]),
            (E(3, 3), torch.ones(())),
            (E(3, 3), 0, "fan_avg"),
            (E(3, 3), 0, 3),
            (E(3, 3), 0, "fan_in", "gelu"),
            (E(3, 3), 0, "fan_in", ["relu"]),
            (E(3, 3), 0, "fan_in", "leaky_relu", 5),
            (E(3, 3, dtype=torch.int32),),
            ([[1.0]],),
        )
    ),
    ("orthogonal_", (E(3),)),
    ("orthogonal_", (E(()),)),
    ("orthogonal_", (E(3, 3), "2")),
    ("orthogonal_", (E(3, 3, dtype=torch.int32),)),
    ("orthogonal_", (E(3, 3), 1.0, 5)),
    ("orthogonal_", (3,)),
    ("dirac_", (E(3, 3),)),
    ("dirac_", (E(3, 3, 3, 3, 3, 3),)),
    ("dirac_", (E(3, 3, 3), 2)),
    ("dirac_", (E(3, 3, 3), 0)),
    ("dirac_", (E(4, 3, 3), 2.0)),
    ("dirac_", (E(4, 3, 0), 2)),
    ("dirac_", (E(4, 3, 3), "2")),
    ("sparse_", (E(3), 0.1)),
    ("sparse_", (E(3, 3, 3), 0.1)),
    ("sparse_", (E(3, 3), NAN)),
    ("sparse_", (E(3, 3), 0.5, -1.0)),
    ("sparse_", (E(3, 3), "0.5")),
    ("sparse_", (E(3, 3, dtype=torch.int32), 0.5)),
    ("sparse_", (E(3, 3),)),
]


@pytest.mark.parametrize(("scheme", "arguments"), BAD, ids=scheme_only)
def test_errors_are_of_the_same_type(scheme, arguments):
    with pytest.raises(Exception) as expected:  # any exception that torch raises
        getattr(theirs, scheme)(*arguments)
    before = arguments[0].clone() if isinstance(arguments[0], torch.Tensor) else None
    with pytest.raises(Exception) as got:
        getattr(ours, scheme)(*arguments)
    assert got.type is expected.type
    if before is not None and before.layout is torch.strided and "2" not in arguments:
        # nothing was written, except where torch writes before it raises
        assert same(arguments[0], before)


@pytest.mark.parametrize(
    ("scheme", "arguments"),
    [
        ("uniform_", (2.0, 1.0)),
        ("uniform_", (0.0, INF)),
        ("normal_", (0.0, -1.0)),
        ("trunc_normal_", (0.0, 0.0)),
        ("trunc_normal_", (0.0, 1.0, 2.0, 1.0)),
        ("xavier_normal_", (-1.0,)),
        ("kaiming_normal_", (NAN,)),
    ],
    ids=str,
)
def test_errors_with_a_seed_are_those_without(scheme, arguments):
    with pytest.raises(Exception) as expected:
        getattr(theirs, scheme)(torch.empty(3, 3), *arguments)
    with pytest.raises(expected.type):
        getattr(ours, scheme)(torch.empty(3, 3), *arguments, seed=0)


def test_a_seed_needs_a_tensor_that_is_ours():
    with pytest.raises(TypeError, match=r"types float64.* got a Tensor of torch.int32"):
        ours.normal_(torch.empty(3, dtype=torch.int32), seed=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        ours.normal_(torch.empty(3), seed=-1)


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_other_types(value):
    expected = ours.normal_(torch.empty(9), 0.5, 0.5, seed=0)
    assert same(ours.normal_(torch.empty(9), value, value, seed=0), expected)
    assert same(ours.uniform_(torch.empty(9), value, value, seed=0), torch.full((9,), 0.5))


def test_what_only_torch_takes():
    """An infinite mean and complex numbers are passed on to torch."""
    assert ours.normal_(torch.empty(3), INF).isinf().all()
    assert ours.normal_(torch.empty(3, dtype=torch.complex64)).dtype == torch.complex64
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="mean is more than 2 std"):
        expected = theirs.trunc_normal_(torch.empty(9), 0.0, 1.0, 60.0, 61.0)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="mean is more than 2 std"):
        got = ours.trunc_normal_(torch.empty(9), 0.0, 1.0, 60.0, 61.0)
    assert same(got, expected)


def recorded(function, *arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(*arguments)
    return caught


@pytest.mark.parametrize(
    ("scheme", "arguments"),
    [
        ("kaiming_uniform_", (torch.empty(0, 3),)),
        ("kaiming_normal_", (torch.empty(3, 0),)),
        ("kaiming_normal_", (torch.empty(0),)),
        ("xavier_normal_", (torch.empty(0, 3),)),
        ("uniform_", (torch.empty(0),)),
        ("normal_", (torch.empty(0, 3),)),
        ("trunc_normal_", (torch.empty(0),)),
        ("orthogonal_", (torch.empty(0, 3),)),
        ("sparse_", (torch.empty(3, 0), 0.5)),
        ("trunc_normal_", (torch.empty(3), 5.0)),
        ("trunc_normal_", (torch.empty(3), -5.0)),
        ("trunc_normal_", (torch.empty(3), 0.0)),
        *((name, (torch.empty(4, 4, 3),)) for name in ("uniform", "normal", "dirac", "orthogonal")),
        *((f"{scheme}_{kind}", (torch.empty(4, 4),)) for scheme in ("xavier", "kaiming")
          for kind in ("uniform", "normal")),
        ("eye", (torch.empty(4, 4),)),
        ("constant", (torch.empty(4, 4), 1.0)),
        ("sparse", (torch.empty(4, 4), 0.5)),
    ],
    ids=scheme_only,
)  # fmt: skip
def test_warnings_are_the_same(scheme, arguments):
    expected = recorded(getattr(theirs, scheme), *arguments)
    got = recorded(getattr(ours, scheme), *arguments)
    assert [warning.category for warning in got] == [warning.category for warning in expected]
    for mine, other in zip(got, expected, strict=True):
        assert str(mine.message).split(" [")[0][:20] == str(other.message)[:20] or "mean" in str(
            mine
        )
        assert mine.filename == __file__  # the warning points at the caller


def test_meta_tensors_are_left_alone():
    for scheme, arguments in RANDOM.items():
        tensor = torch.empty(4, 5, device="meta")
        assert getattr(ours, scheme)(tensor, **arguments) is tensor
        assert getattr(ours, scheme)(tensor, **arguments, seed=1) is tensor
    tensor = torch.empty(4, 5, 3, device="meta")
    assert ours.dirac_(tensor) is tensor


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (7, 3, 5, 2), (300,)], ids=str)
@pytest.mark.parametrize("scheme", RANDOM)
def test_other_devices_are_filled_through_host_memory(scheme, shape, monkeypatch, request):
    """No other device is available, so CPU tensors are filled in pieces as for one."""
    if len(shape) < 2 and scheme not in ("uniform_", "normal_", "trunc_normal_"):
        return
    if scheme == "sparse_" and len(shape) != 2:
        return
    expected = getattr(ours, scheme)(torch.empty(shape), **RANDOM[scheme], seed=1)
    sizes = []
    empty = torch.empty

    def watched(*arguments, **keywords):
        made = empty(*arguments, **keywords)
        sizes.append(made.nbytes)
        return made

    got = torch.empty(shape)
    request.getfixturevalue("elsewhere")
    monkeypatch.setattr(memory, "HOST_BYTES", 4 * 50)
    monkeypatch.setattr(torch, "empty", watched)
    assert getattr(ours, scheme)(got, **RANDOM[scheme], seed=1) is got
    assert same(got, expected)
    assert len(sizes) > 1 and max(sizes) <= 4 * 50 * (2 if scheme == "orthogonal_" else 1)


def test_the_negation_bit():
    """x.conj().imag is a negated view of its memory: its values must be the numbers."""
    expected = ours.normal_(torch.empty(3, 4), seed=1)
    tensor = torch.zeros(3, 4, dtype=torch.complex64).conj().imag
    assert tensor.is_neg()
    assert same(ours.normal_(tensor, seed=1), expected)
    single = torch.zeros(1, dtype=torch.complex64).conj().imag
    assert ours.normal_(single, mean=3.0, std=0.0) == 3
    with pytest.raises(TypeError, match="negated view of its memory"):
        wf.Ones().fill(tensor)


def test_subclasses():
    class Plain(torch.Tensor):
        pass

    tensor = torch.empty(3, 4).as_subclass(Plain)
    assert ours.kaiming_uniform_(tensor, seed=1) is tensor
    expected = ours.kaiming_uniform_(torch.empty(3, 4), seed=1)
    assert torch.equal(tensor.as_subclass(torch.Tensor), expected)

    seen = []

    class Watching(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    ours.normal_(torch.empty(3).as_subclass(Watching))
    assert ours.normal_ in seen


def test_inference_mode_and_transforms():
    with torch.inference_mode():
        tensor = ours.normal_(torch.empty(3, 4), seed=1)
    assert same(tensor.clone(), ours.normal_(torch.empty(3, 4), seed=1))
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        ours.normal_(tensor)

    def noise(x):
        return ours.normal_(torch.empty_like(x)) + 0 * x

    assert torch.func.vmap(noise, randomness="different")(torch.ones(3, 2)).shape == (3, 2)


def test_a_saved_tensor_that_is_filled_is_noticed():
    weight = torch.ones(3)
    factor = torch.ones(3, requires_grad=True)
    product = (factor * weight).sum()
    ours.normal_(weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_without_torch_the_error_names_the_extra():
    program = "import sys; sys.modules['torch'] = None; import winit_fast; import winit_fast.torch"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ImportError: winit_fast.torch needs PyTorch" in run.stderr
    assert "pip install 'winit_fast[torch]'" in run.stderr


def test_the_package_has_the_adapter_by_name():
    program = "import winit_fast as wf; print(wf.torch.normal_.__name__)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "normal_\n", run.stderr


def test_xavier_by_the_catalogue_is_torchs_to_the_bit():
    """torch computes gain * sqrt(2.0 / (fan_in + fan_out)), then sqrt(3.0) times that."""
    generator = np.random.default_rng(0)
    fans = np.concatenate([generator.integers(1, 2**k, (60, 2)) for k in range(1, 31)])
    for gain in (1.0, math.sqrt(2), 5 / 3, *generator.uniform(0, 3, 3)):
        for fan_in, fan_out in fans.tolist():
            expected = gain * math.sqrt(2.0 / float(fan_in + fan_out))
            assert gain * ours.init._xavier_std((fan_out, fan_in)) == expected
    assert ours.init._fans((6, 4, 3, 5)) == theirs._calculate_fan_in_and_fan_out(E(6, 4, 3, 5))
