"""The author's own code, run on real memory with its draws taken from the tensors' streams.

Nothing of the recorder is used: a first run finds the tensor of the finished model in which every
draw ends, and a second run gives each draw the elements of that tensor's stream. So the model must
have the bits of the recorded plan.
"""

import numpy as np
import pytest
import torch
import transformers
from tiny_models import TRANSFORMERS, of_transformers
from torch.utils._python_dispatch import TorchDispatchMode

import winit_fast as wf
import winit_fast.torch as init

aten = torch.ops.aten
IN_PLACE = {
    aten.normal_.default: lambda mean=0.0, std=1.0: wf.RandomNormal(mean, std),
    aten.uniform_.default: lambda low=0.0, high=1.0: wf.RandomUniform(low, high),
}
NEW = {
    aten.rand.default: wf.RandomUniform(0.0, 1.0),
    aten.randn.default: wf.RandomNormal(0.0, 1.0),
}
COPIES = {aten.copy_.default, aten.clone.default, aten._to_copy.default, aten.detach.default}


def storage(tensor):
    return tensor.untyped_storage()._cdata


def tensors_in(arguments):
    for one in arguments.values() if isinstance(arguments, dict) else arguments:
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, (list, tuple, dict)):
            yield from tensors_in(one)


class Draws(TorchDispatchMode):
    """Number the draws, and follow each to the memory in which it ends.

    Attributes
    ----------
    drawn : list of Tensor
        Into which each draw was made.
    ends : dict of int to set of int
        The numbers of the draws that are in a storage.
    computed : set of int
        The storages with results of computations with draws.
    """

    def __init__(self, values=None):
        super().__init__()
        self.values = values
        self.drawn, self.kept = [], []
        self.ends, self.computed = {}, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in IN_PLACE:
            return self.draw(args[0], IN_PLACE[func](*args[1:]))
        if func in NEW:
            return self.draw(func(*args, **kwargs), NEW[func])
        assert torch.Tag.nondeterministic_seeded not in func.tags, func
        result = func(*args, **kwargs)
        results = [result] if isinstance(result, torch.Tensor) else list(tensors_in([result]))
        self.kept += results  # or another storage would get the address
        if func.is_view:
            return result
        sources = {storage(one) for one in tensors_in([args, kwargs])}
        found = set().union(*(self.ends.get(one, ()) for one in sources))
        for one in results if found else ():
            place = storage(one)
            self.ends[place] = self.ends.get(place, set()) | found
            written = {storage(args[1])} if func is aten.copy_.default else sources
            copied = func in COPIES and not written & self.computed
            if not copied and func not in (aten.zero_.default, aten.fill_.Scalar):
                self.computed.add(place)
        return result

    def draw(self, tensor, scheme):
        number = len(self.drawn)
        self.drawn.append(tensor)
        self.ends.setdefault(storage(tensor), set()).add(number)
        if self.values is not None:
            tensor.copy_(self.values(number, tensor, scheme))
        return tensor


def named(model):
    """Every tensor under its first name."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def from_streams(make, seed, streams):
    """Make a model with the draws of the streams, and name the tensors that are computed."""
    with Draws() as first:
        model = make()
    names = {storage(tensor): (name, tensor) for name, tensor in reversed(named(model).items())}
    ends = {
        number: names[place]
        for place, numbers in first.ends.items() if place in names for number in numbers
    }  # fmt: skip

    def values(number, tensor, scheme):
        if number not in ends:  # overwritten
            return torch.full_like(tensor, float("nan"))
        name, whole = streams[ends[number][0]], ends[number][1]
        drawn_into = first.drawn[number]
        if storage(drawn_into) == storage(whole):
            made = torch.from_numpy(scheme(tuple(whole.shape), seed=seed, name=name))
            return made.as_strided(
                drawn_into.shape, drawn_into.stride(), drawn_into.storage_offset()
            )
        return torch.from_numpy(scheme(tuple(tensor.shape), seed=seed, name=name))

    with Draws(values) as second:
        model = make()
    assert len(second.drawn) == len(first.drawn)
    computed = {name for name, tensor in named(model).items() if storage(tensor) in second.computed}
    return named(model), computed


MODELS = {
    "LlamaForCausalLM": set(),
    "Gemma3ForCausalLM": set(),
    "GPT2LMHeadModel": set(),
    "OPTForCausalLM": set(),
    "BloomForCausalLM": set(),
    "MambaForCausalLM": {"dt_proj.bias"},
    "Mamba2ForCausalLM": {"dt_bias", "out_proj.weight"},
    "T5ForConditionalGeneration": set(),
    "BertForMaskedLM": set(),
    "WhisperForConditionalGeneration": set(),
}
"""Models, with what they compute from draws."""

SAMPLE = {"MambaForCausalLM", "BertForMaskedLM"}


def rescaled():
    settings = TRANSFORMERS["Mamba2ForCausalLM"]
    config = transformers.Mamba2Config(**settings, rescale_prenorm_residual=True)
    return transformers.Mamba2ForCausalLM(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(*item, id=item[0], marks=() if item[0] in SAMPLE else pytest.mark.models)
        for item in MODELS.items()
    ],
)
def test_the_authors_code_with_our_draws_has_the_bits_of_the_plan(name, expected):
    make = rescaled if name == "Mamba2ForCausalLM" else of_transformers(name)
    plan = init.record(make)
    tensors, computed = from_streams(make, 3, {one.name: one.stream for one in plan})
    assert tensors.keys() == set(plan.names)
    assert {end for one in computed for end in expected if one.endswith(end)} == expected
    assert all(one.endswith(tuple(expected)) for one in computed)
    equal = 0
    for one, array in plan.arrays(3):
        author = tensors[one].detach().numpy()
        if one not in computed:
            assert author.tobytes() == array.tobytes(), one
            equal += not np.isin(author, author.flat[0]).all()
        elif isinstance(plan[one].initializer, wf.Expression):  # float32 there, float64 here
            np.testing.assert_allclose(array, author, rtol=1e-5, err_msg=one)
        else:  # scaled: the author's code rounds twice, the plan once
            np.testing.assert_allclose(array, author, rtol=2**-22, err_msg=one)
    assert equal >= 8
