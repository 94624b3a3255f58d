"""Traces, transforms, autograd and torch.utils.checkpoint see the fills inside fast_init."""

import pytest
import torch
import torch.autograd.forward_ad as forward
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import winit_fast as wf
import winit_fast.torch as ours
from winit_fast.torch import fast_init

DRAWS = {
    "method": lambda: torch.empty(4, 5).normal_(0.0, 2.0),
    "torch.nn.init": lambda: nn.init.kaiming_uniform_(torch.empty(4, 5)),
    "ours": lambda: ours.xavier_normal_(torch.empty(4, 5)),
    "ours, truncated": lambda: ours.trunc_normal_(torch.empty(4, 5)),
}
TRACES = {
    "jit.trace": lambda run: torch.jit.trace(run, torch.zeros(4, 5), check_trace=False),
    "make_fx": lambda run: make_fx(run)(torch.zeros(4, 5)),
    "make_fx of fakes": lambda run: make_fx(run, tracing_mode="fake")(torch.zeros(4, 5)),
}


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("draw", [name for name in DRAWS if name != "ours, truncated"])
@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_has_the_draw(trace, draw):
    """A replayed trace draws again, with torch's own numbers for the seed."""

    def run(x):
        return x + DRAWS[draw]()

    with fast_init(seed=1):
        traced = TRACES[trace](run)
    torch.manual_seed(1)
    first = traced(torch.zeros(4, 5))
    second = traced(torch.zeros(4, 5))
    assert not torch.equal(first, second)
    theirs = {"ours": lambda: nn.init.xavier_normal_(torch.empty(4, 5))}.get(draw, DRAWS[draw])
    torch.manual_seed(1)
    assert torch.equal(first, theirs())


@pytest.mark.parametrize("draw", DRAWS)
def test_a_dispatch_mode_sees_the_draw(draw):
    with fast_init(seed=1), Seen() as seen:
        DRAWS[draw]()
    assert seen.names & {"normal_", "uniform_"}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # jit.trace is deprecated
def test_a_seed_that_would_not_be_seen_is_refused():
    for context, name in ((FakeTensorMode(), "TorchDispatchMode"), (Seen(), "TorchDispatchMode")):
        with context, pytest.raises(RuntimeError, match=f"seed=3 asks for .* a {name}"):
            ours.normal_(torch.empty(3), seed=3)
    with pytest.raises(RuntimeError, match=r"seed=3 .* torch\.jit\.trace"):
        torch.jit.trace(lambda x: ours.normal_(torch.empty(3), seed=3), torch.ones(1))
    with pytest.raises(RuntimeError, match=r"seed=3 .* torch\.func"):
        torch.func.vmap(lambda x: ours.normal_(torch.empty(3), seed=3))(torch.ones(2))


def test_a_fill_that_would_not_be_seen_is_refused():
    tensor = torch.zeros(3)
    with Seen(), pytest.raises(RuntimeError, match="a TorchDispatchMode would not see it filled"):
        wf.Ones().fill(tensor)
    with FakeTensorMode(), pytest.raises(RuntimeError, match="TorchDispatchMode would not see"):
        wf.Stream(0).normal(out=torch.empty(3))
    fake = FakeTensorMode().from_tensor(tensor)
    with pytest.raises(TypeError, match="got a FakeTensor, which has a __torch_dispatch__"):
        wf.Ones().fill(fake)
    with torch.inference_mode():
        inference = torch.zeros(3)
        wf.Ones().fill(inference)
    with pytest.raises(RuntimeError, match="in inference_mode only"):
        wf.Zeros().fill(inference)
    assert not tensor.any() and inference.all()


def test_fake_tensors_stay_fake_and_real_ones_as_they_were():
    real = torch.zeros(3)
    with fast_init(seed=1), FakeTensorMode(allow_non_fake_inputs=True):
        assert type(nn.init.normal_(torch.empty(3))) is FakeTensor
        real.normal_()
    assert not real.any()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_functions_have_torchs_numbers(backend):
    """No graph break, and the numbers of the same compiled function without fast_init."""

    def run(x):
        weight = nn.init.normal_(torch.empty(4, 5))
        weight = weight + nn.init.kaiming_uniform_(torch.empty(4, 5))
        return x @ (weight + torch.empty(4, 5).uniform_() + ours.normal_(torch.empty(4, 5)))

    def compiled():
        torch._dynamo.reset()
        torch.manual_seed(0)
        return torch.compile(run, backend=backend, fullgraph=True)(torch.ones(2, 4))

    expected = compiled()
    with fast_init(seed=3):
        assert torch.equal(compiled(), expected)


FILLS = {
    "fill": lambda tensor: wf.Zeros().fill(tensor),
    "part": lambda tensor: wf.Zeros().fill(tensor, shape=(9,), index=(slice(3, 6),)),
    "stream": lambda tensor: wf.Stream(1).normal(out=tensor),
    "namesake": lambda tensor: ours.normal_(tensor, seed=1),
    "through host memory": lambda tensor: ours.memory.fill_through_host(
        tensor, lambda array, box: array.fill(0)
    ),
}


@pytest.mark.parametrize("fill", FILLS)
def test_autograd_knows_of_a_fill(fill):
    weight, factor = torch.ones(3), torch.ones(3, requires_grad=True)
    product = (factor * weight).sum()
    FILLS[fill](weight)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_autograd_knows_of_a_fill_of_a_parameter_and_of_a_view():
    parameter = nn.Parameter(torch.ones(3))
    wf.Zeros().fill(parameter)
    assert parameter._version == 1 and parameter.requires_grad and parameter.grad_fn is None
    base = torch.ones(4)
    wf.Zeros().fill(base[1:3])
    assert base._version == 1 and base.tolist() == [1, 0, 0, 1]
    words = torch.zeros(4, dtype=torch.uint32)
    wf.Stream(1).bits(out=words)
    assert words._version == 1


def test_without_the_adapter_autograd_knows_too():
    """Nothing but torch and winit_fast is imported."""
    import subprocess
    import sys

    program = (
        "import torch, winit_fast as wf; w = torch.ones(3); wf.Zeros().fill(w); "
        "assert w._version == 1"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from torch's own use of jit.script
@pytest.mark.parametrize("fill", FILLS)
def test_tangents_become_zeros(fill):
    with forward.dual_level():
        dual = forward.make_dual(torch.ones(3), torch.full((3,), 2.0))
        FILLS[fill](dual)
        value, tangent = forward.unpack_dual(dual)
        assert tangent is None or not tangent.any()
        plain = torch.ones(3)
        FILLS[fill](plain)
        assert torch.equal(value, plain)


def noise(x):
    return x * torch.empty_like(x).normal_()


def by_method(result, x):
    result.sum().backward()
    return x.grad


def by_function(result, x):
    torch.autograd.backward(result.sum())
    return x.grad


def by_grad(result, x):
    (gradient,) = torch.autograd.grad(result.sum(), x)
    return gradient


PASSES = [
    *((True, run) for run in (by_method, by_function)),
    *((False, run) for run in (by_method, by_function, by_grad)),
]


@pytest.mark.parametrize(("reentrant", "run"), PASSES)
def test_a_checkpoint_repeats_the_numbers(reentrant, run):
    """Without a seed, torch.utils.checkpoint restores the generator, and so the numbers."""
    x = torch.ones(5, requires_grad=True)
    torch.manual_seed(1)
    with fast_init():
        result = checkpoint(noise, x, use_reentrant=reentrant)
        gradient = run(result, x)
    assert torch.equal(gradient, result.detach())  # the factor, because x is 1
    torch.manual_seed(1)
    assert torch.equal(gradient, ours.normal_(torch.empty(5)))


@pytest.mark.parametrize(("reentrant", "run"), PASSES)
def test_a_seed_cannot_repeat_in_a_checkpoint(reentrant, run):
    x = torch.ones(5, requires_grad=True)
    with fast_init(seed=1):
        result = checkpoint(noise, x, use_reentrant=reentrant)
        with pytest.raises(RuntimeError, match="in a backward pass"):
            run(result, x)
    with fast_init(seed=1):  # outside of a checkpoint nothing changes
        assert run(noise(x), x) is not None


def test_a_backward_pass_inside_is_as_without():
    x = torch.ones(3, requires_grad=True)
    with fast_init(seed=1):
        (x**2).sum().backward(retain_graph=True)
        (x**3).backward(torch.ones(3), inputs=[x])
        first, second = torch.autograd.grad(
            [x.sum(), (2 * x).sum()], [x, x], materialize_grads=True
        )
    assert x.grad.tolist() == [5, 5, 5] and first.tolist() == second.tolist() == [3, 3, 3]
