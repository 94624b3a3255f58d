"""fast_init: existing code uses this package's numbers; other threads and functions do not."""

import gc
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn
from torch.overrides import TorchFunctionMode

import winit_fast as wf
from winit_fast.base import dtypes
from winit_fast.torch import fast_init, init, normal_, trunc_normal_, uniform_


class Convolutional(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3), nn.GroupNorm(4, 32), nn.Flatten(), nn.LazyLinear(10),
        )  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(100, 64, padding_idx=3)
        self.lstm = nn.LSTM(64, 64, 2)
        self.bilinear = nn.Bilinear(64, 64, 64)
        for name, weight in self.lstm.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(weight)
        nn.init.trunc_normal_(self.bilinear.bias, std=0.02)


class Written(nn.Module):
    """Parameters that a constructor initialises by hand, in the usual ways."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.empty(64, 64).normal_(0, 0.02))
        self.b = nn.Parameter(torch.empty(64, 64))
        self.b.data.uniform_(-0.1, to=0.1)
        self.c = nn.Linear(64, 64)
        self.c.weight.data.normal_(mean=0.0, std=0.02)
        self.c.bias.data.zero_()
        self.d = nn.Parameter(torch.empty(64, 64, dtype=torch.bfloat16))
        with torch.no_grad():
            self.d.normal_(std=0.02)


def transformer():
    return nn.Transformer(64, 4, 2, 2, 128, batch_first=True)


MODELS = [Convolutional, Recurrent, Written, transformer, lambda: nn.MultiheadAttention(64, 4)]


def values(model):
    return {
        name: p.detach().clone()
        for name, p in model.state_dict().items()
        if p.is_floating_point()
        and not isinstance(
            p, nn.parameter.UninitializedBuffer | nn.parameter.UninitializedParameter
        )
    }


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("make", MODELS)
def test_models_have_the_distributions_that_torch_gives_them(make):
    """Two-sample Kolmogorov-Smirnov: a false alarm in 10^5 seeds a tensor; the seed is fixed."""
    torch.manual_seed(0)
    own = values(make())
    torch.manual_seed(0)
    with fast_init():
        fast = values(make())
    assert own.keys() == fast.keys()
    drawn = 0
    for name, tensor in own.items():
        assert fast[name].dtype == tensor.dtype and fast[name].shape == tensor.shape
        if tensor.unique().numel() <= 2:  # constants
            assert torch.equal(fast[name], tensor)
        else:
            drawn += 1
            assert not torch.equal(fast[name], tensor)  # it was filled by this package
            result = stats.ks_2samp(tensor.flatten().float(), fast[name].flatten().float())
            assert result.pvalue > 1e-5, name
    assert drawn


@pytest.mark.parametrize("make", MODELS)
def test_seeds(make):
    def made(seed=None):
        with fast_init(seed):
            return values(make())

    torch.manual_seed(0)
    first, second = made(), made()
    torch.manual_seed(0)
    assert equal(first, made()) and equal(second, made()) and not equal(first, second)
    state = torch.random.get_rng_state()
    assert equal(made(5), made(5)) and not equal(made(5), made(6))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_streams_of_a_seed_are_numbered():
    with fast_init(seed=7):
        first, second = torch.empty(5, 6).normal_(), nn.init.uniform_(torch.empty(5, 6), -1, 1)
    assert (first.numpy() == wf.Stream(7, 0).normal(shape=(5, 6))).all()
    assert (second.numpy() == wf.Stream(7, 1).uniform(-1, 1, (5, 6))).all()


def test_nesting():
    with fast_init(seed=7):
        first = torch.empty(9).normal_()
        with fast_init(seed=7):
            again = torch.empty(9).normal_()
        torch.manual_seed(3)
        with fast_init():
            by_torch = torch.empty(9).normal_()
        torch.manual_seed(3)
        assert torch.equal(by_torch, normal_(torch.empty(9), name=0))
        second = torch.empty(9).normal_()
    assert torch.equal(first, again)
    assert (second.numpy() == wf.Stream(7, 1).normal(shape=9)).all()
    torch.manual_seed(3)
    outside = torch.empty(9).normal_()
    torch.manual_seed(3)
    assert torch.equal(outside, torch.empty(9).normal_()) and not torch.equal(outside, by_torch)


def test_after_an_exception_all_is_as_before():
    torch.manual_seed(3)
    expected = torch.empty(9).normal_()
    with pytest.raises(RuntimeError, match="normal expects std >= 0.0"), fast_init(seed=1):
        torch.empty(9).normal_(0, -1)
    torch.manual_seed(3)
    assert torch.equal(torch.empty(9).normal_(), expected)
    torch.manual_seed(3)
    first = normal_(torch.empty(9))  # the context has not left a source of numbers behind
    torch.manual_seed(3)
    assert torch.equal(normal_(torch.empty(9)), first)


def test_another_thread_is_not_affected():
    """Another thread gets torch's own numbers while this one is inside fast_init."""
    torch.manual_seed(3)
    expected = nn.init.kaiming_uniform_(torch.empty(9, 9))
    inside, done, made = threading.Event(), threading.Event(), []

    def work():
        inside.wait()
        made.append(nn.init.kaiming_uniform_(torch.empty(9, 9)))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    functions = nn.init.kaiming_uniform_, torch.Tensor.normal_
    with fast_init(seed=1):
        own = nn.init.kaiming_uniform_(torch.empty(9, 9))
        assert functions == (nn.init.kaiming_uniform_, torch.Tensor.normal_)  # nothing is patched
        torch.manual_seed(3)
        inside.set()
        done.wait()
    thread.join()
    assert torch.equal(made[0], expected) and not torch.equal(own, expected)


def test_generators_go_first():
    generator = torch.Generator().manual_seed(1)
    with fast_init(seed=7):
        first = torch.empty(9).normal_(generator=generator)
    generator.manual_seed(1)
    assert torch.equal(first, normal_(torch.empty(9), generator=generator))


def test_our_functions_inside():
    with fast_init(seed=7):
        first, second = uniform_(torch.empty(9)), uniform_(torch.empty(9), seed=1)
    assert (first.numpy() == wf.Stream(7, 0).uniform(shape=9)).all()
    assert (second.numpy() == wf.Stream(1).uniform(shape=9)).all()


def torchs_own(make):
    """Whether the result inside fast_init is torch's own."""
    torch.manual_seed(3)
    expected = make()
    torch.manual_seed(3)
    with fast_init():
        got = make()
    return torch.equal(got, expected)


class Sub(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(9, dtype=torch.complex64).uniform_(),
        lambda: torch.randn(9),
        lambda: torch.empty(9).exponential_(),
        lambda: torch.empty(9).as_subclass(Sub).normal_(),
        lambda: torch.empty(9).normal_(math.inf),
        lambda: nn.init.uniform_(torch.empty(9, dtype=torch.complex64)),
        lambda: torch.randperm(9),
    ],
)
def test_what_is_not_ours_is_as_without(make):
    assert torchs_own(make)


def test_meta():
    with fast_init(seed=1), torch.device("meta"):
        model = nn.Linear(3, 4)
        nn.init.trunc_normal_(model.weight)
        nn.init.orthogonal_(model.weight)
        assert model.weight.is_meta
    for first, second in (
        (fast_init(1), torch.device("cpu")),
        (torch.device("cpu"), fast_init(1)),
    ):
        with first, second:
            weight = nn.Linear(3, 4).weight
        with fast_init(1):
            assert torch.equal(nn.Linear(3, 4).weight, weight)


def test_errors_inside():
    leaf = torch.zeros(3, requires_grad=True)
    with fast_init():
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            leaf.normal_()
        with pytest.raises(TypeError, match="must be float, not str"):
            leaf.data.uniform_("0", 1)
        with pytest.raises(TypeError, match="multiple values"):
            leaf.data.uniform_(0, 1, to=2)
        with pytest.raises(TypeError, match="unexpected keyword"):
            leaf.data.normal_(loc=1)
        with pytest.raises(NotImplementedError):
            torch.empty(3, dtype=torch.int32).normal_()
        with pytest.raises(ValueError, match="fewer than 2 dimensions"):
            nn.init.kaiming_uniform_(leaf)
        with pytest.warns(UserWarning, match="zero-element"):
            nn.init.kaiming_uniform_(torch.empty(0, 3))
    assert (leaf == 0).all()


def test_in_a_graph():
    """A draw into a tensor of an autograd graph is recorded in the graph, as without fast_init."""
    leaf = torch.ones(3, requires_grad=True)
    with fast_init():
        noise = (leaf * 2).normal_()
    noise.sum().backward()
    assert (leaf.grad == 0).all()


@pytest.mark.filterwarnings("ignore:mean 0.0 is more than 2 std")
@pytest.mark.parametrize(
    "bounds", [(-2.0, 2.0), (-1.0, 0.5), (1.0, 3.0), (4.0, 40.0), (-9.0, -7.0)], ids=str
)
def test_trunc_normal(bounds):
    """Our numbers, both where torch would reject normal numbers and where uniform ones."""
    torch.manual_seed(4)
    with fast_init():
        tensor = nn.init.trunc_normal_(torch.empty(20000), 0.0, 1.0, *bounds)
    assert bounds[0] <= tensor.min() and tensor.max() <= bounds[1]
    assert stats.kstest(tensor, stats.truncnorm(*bounds).cdf).pvalue > 1e-4
    torch.manual_seed(4)
    assert torch.equal(tensor, trunc_normal_(torch.empty(20000), 0.0, 1.0, *bounds))


class Other(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(30, 30), (40, 10), (10, 4, 5)], ids=str)
def test_orthogonal(shape):
    """Reflectors instead of QR, also with other modes inside or outside."""
    expected = wf.Orthogonal(column_axis=0)((shape[0], math.prod(shape[1:])), seed=7, name=0)
    contexts = [(fast_init(seed=7),), (fast_init(seed=7), Other()), (Other(), fast_init(seed=7))]
    for context in contexts:
        tensor = torch.empty(shape)
        for part in context:
            part.__enter__()
        try:
            nn.init.orthogonal_(tensor, gain=2.0)
        finally:
            for part in reversed(context):
                part.__exit__(None, None, None)
        assert (tensor.flatten(1) / 2 - torch.from_numpy(expected)).abs().max() < 1e-6


def test_qr_of_others_is_qr():
    matrix = torch.randn(5, 5)
    with fast_init():
        q, r = torch.linalg.qr(matrix)
    assert torch.allclose(q @ r, matrix, atol=1e-5) and not torch.equal(q, matrix)


def test_nothing_is_kept():
    """Contexts keep no tensors alive after they end."""
    with fast_init(seed=1):
        nn.init.orthogonal_(torch.empty(8, 8))
        nn.init.trunc_normal_(torch.empty(8))
    gc.collect()
    before = sum(type(thing) is torch.Tensor for thing in gc.get_objects())
    for _ in range(10):
        with fast_init(seed=1):
            nn.init.orthogonal_(torch.empty(8, 8))
            nn.init.trunc_normal_(torch.empty(8))
    gc.collect()
    assert sum(type(thing) is torch.Tensor for thing in gc.get_objects()) <= before


def test_as_a_decorator_every_call_has_a_context_of_its_own():
    @fast_init(seed=7)
    def make(size, *, scale=1.0):
        """Make one."""
        return torch.empty(size).normal_(std=scale)

    assert make.__name__ == "make" and make.__doc__ == "Make one."
    assert torch.equal(make(9), make(9))
    assert (make(9, scale=2.0).numpy() == wf.Stream(7, 0).normal(0, 2, 9)).all()

    @fast_init()
    def by_torch():
        return torch.empty(9).normal_()

    torch.manual_seed(1)
    first, second = by_torch(), by_torch()
    torch.manual_seed(1)
    assert torch.equal(first, by_torch()) and not torch.equal(first, second)

    @fast_init(seed=7)
    def nested(depth):
        made = torch.empty(9).normal_()
        return torch.stack([made, nested(depth - 1)[0]]) if depth else made[None]

    assert torch.equal(*nested(1))


def test_what_cannot_be_decorated():
    def generator():
        yield torch.empty(9).normal_()

    async def coroutine():
        return torch.empty(9).normal_()

    for function in (generator, coroutine):
        with pytest.raises(TypeError, match=f"{function.__name__}, whose body runs after the call"):
            fast_init(seed=1)(function)
    with pytest.raises(TypeError, match="decorates functions, got <class"):
        fast_init(seed=1)(nn.Linear)


def test_one_object_is_one_context():
    context = fast_init(seed=1)
    with context:
        with pytest.raises(RuntimeError, match="was entered before: make a new one"), context:
            pass
        assert (torch.empty(9).normal_().numpy() == wf.Stream(1, 0).normal(shape=9)).all()
    with pytest.raises(RuntimeError, match="was entered before"), context:
        pass
    torch.manual_seed(3)
    expected = torch.empty(9).normal_()
    torch.manual_seed(3)
    assert torch.equal(torch.empty(9).normal_(), expected)  # no context is left on the stack


NARROW = [kind.name for kind in dtypes.FLOATS.values() if kind.dtype.itemsize < 4]


@pytest.mark.parametrize("dtype", NARROW)
def test_orthogonal_in_a_narrow_type_is_float32_rounded_once(dtype):
    dtype = getattr(torch, dtype)
    with fast_init(seed=7):
        narrow = nn.init.orthogonal_(torch.empty(30, 20, dtype=dtype), gain=2.0)
    with fast_init(seed=7):
        wide = nn.init.orthogonal_(torch.empty(30, 20), gain=2.0)
    assert torch.equal(narrow.view(torch.uint8), wide.to(dtype).view(torch.uint8))


def test_uniform_bounds_outside_of_the_type():
    """torch raises an error for these bounds; for float8, which torch cannot draw, we do."""
    for dtype, bound in ((torch.float16, 1e6), (torch.bfloat16, 3.4e38), (torch.float32, 1e39)):
        tensor = torch.zeros(3, dtype=dtype)
        with fast_init(seed=1), pytest.raises(RuntimeError, match="is out of bounds for"):
            tensor.uniform_(-bound, bound)
        with pytest.raises(RuntimeError, match="is out of bounds for"):
            uniform_(tensor, -bound, bound)
        with pytest.raises(RuntimeError, match="is out of bounds for"):
            uniform_(tensor, 0, bound, seed=1)
        assert not tensor.any()
    tensor = torch.zeros(3, dtype=torch.float8_e4m3fn)
    for seed in (None, 1):
        with pytest.raises(ValueError, match=r"numbers of the tensor's type, got -500\.0 and 0"):
            uniform_(tensor, -500.0, 0.0, seed=seed)
    assert uniform_(torch.empty(3, dtype=torch.float16), 0, 65504.0, seed=1).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_normals_are_two_real_parts(dtype):
    real = torch.empty((), dtype=dtype).real.dtype
    expected = torch.empty(30, 20, 2, dtype=real)
    normal_(expected, 1.0, 3.0 / math.sqrt(2.0), seed=7, name=0)
    with fast_init(seed=7):
        method, entry = (torch.empty(30, 20, dtype=dtype) for _ in range(2))
        method.normal_(1.0, 3.0)
    with fast_init(seed=7):
        nn.init.normal_(entry, 1.0, 3.0)
    parameter = nn.Parameter(torch.empty(20, 30, dtype=dtype).T)
    assert normal_(parameter, 1.0, 3.0, seed=7, name=0) is parameter
    assert parameter.grad_fn is None and parameter._version == 1
    for tensor in (method, entry, parameter.detach()):
        assert torch.equal(torch.view_as_real(tensor), expected)
    # The fans are those of the complex shape; the variance is that of real and imaginary part
    # together.
    for scheme, variance in (("xavier_normal_", 2 / 900), ("kaiming_normal_", 2 / 400)):
        tensor = getattr(init, scheme)(torch.empty(500, 400, dtype=dtype), seed=1)
        assert tensor.abs().square().mean().item() == pytest.approx(variance, rel=0.02)
    conjugate = torch.empty(9, dtype=dtype).conj()
    assert torchs_own(lambda: normal_(conjugate).clone())


def test_imported_while_transformers_has_emptied_the_names():
    # declares the operators that torchvision lacks with a CPU build of torch
    declared = Path(__file__).with_name("conftest.py")
    program = (
        f"import runpy\nrunpy.run_path({str(declared)!r})"
        """
import torch
from transformers.initialization import no_init_weights
with no_init_weights():
    import winit_fast.torch as ours
for name in ("zeros_", "ones_", "eye_"):
    got = getattr(ours, name)(torch.full((3, 3), 7.0))
    assert torch.equal(got, getattr(torch.nn.init, name)(torch.empty(3, 3))), name
assert (ours.constant_(torch.zeros(3), 2.0) == 2).all()
assert ours.normal_(torch.zeros(3, dtype=torch.complex64).conj()).abs().all()
with ours.fast_init(seed=7):
    got = torch.nn.init.normal_(torch.zeros(5))
assert torch.equal(got, ours.normal_(torch.zeros(5), seed=7, name=0))
"""
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


DISTRIBUTED = """
import pytest, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
import winit_fast as wf
import winit_fast.torch as ours
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
tensor = distribute_tensor(torch.zeros(4, 6), init_device_mesh("cpu", (1,)), [Shard(0)])
weight = torch.nn.Parameter(tensor)
for part in (tensor, weight):
    for fill in (
        lambda: wf.HeNormal().fill(part, seed=0),
        lambda: wf.Stream(0).normal(out=part),
    ):
        with pytest.raises(TypeError, match="got a DTensor of shape"):
            fill()
    for fill in (
        lambda: ours.normal_(part),
        lambda: ours.normal_(part, name="weight"),
        lambda: ours.normal_(part, generator=torch.Generator()),
        lambda: ours.kaiming_uniform_(part),
        lambda: ours.xavier_uniform_(part),
        lambda: ours.orthogonal_(part),
        lambda: ours.sparse_(part, 0.5),
        lambda: ours.trunc_normal_(part),
    ):
        with pytest.raises(ValueError, match="seed must be given for a DTensor, got"):
            fill()
    for fill in (
        lambda: part.detach().normal_(),
        lambda: torch.nn.init.kaiming_uniform_(part),
        lambda: torch.nn.init.xavier_normal_(part),
        lambda: torch.nn.init.trunc_normal_(part),
        lambda: torch.nn.init.orthogonal_(part),
    ):
        with ours.fast_init(), pytest.raises(ValueError, match="seed must be given for a DTensor"):
            fill()
    assert (part.full_tensor() == 0).all()
with ours.fast_init():
    torch.nn.init.ones_(weight)  # constants are torch's, and right
assert (weight.full_tensor() == 1).all()
"""


def test_dtensors_are_refused_without_a_seed():
    run = subprocess.run([sys.executable, "-c", DISTRIBUTED], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
