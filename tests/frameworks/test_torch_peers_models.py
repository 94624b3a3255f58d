"""Models of transformers and timm inside fast_init: repeatable, and with torch's distributions."""

import pytest
import torch
from scipy import stats
from tiny_models import of_timm, of_transformers
from torch.overrides import TorchFunctionMode

from winit_fast.torch import fast_init

TRANSFORMERS = [
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Gemma2ForCausalLM",
    "Phi3ForCausalLM",
    "GPT2LMHeadModel",
    "GPTNeoXForCausalLM",
    "OPTForCausalLM",
    "BloomForCausalLM",
    "FalconForCausalLM",
    "MambaForCausalLM",
    "Mamba2ForCausalLM",
    "T5ForConditionalGeneration",
    "BartForConditionalGeneration",
    "BertForMaskedLM",
    "RobertaForMaskedLM",
    "ElectraForPreTraining",
    "DistilBertForMaskedLM",
    "DebertaV2ForMaskedLM",
    "ViTForImageClassification",
    "Dinov2Model",
    "SwinModel",
    "ConvNextModel",
    "CLIPModel",
    "WhisperForConditionalGeneration",
]
TIMM = [
    "test_vit",
    "test_vit2",
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_byobnet",
    "test_nfnet",
    "test_mambaout",
    "vit_tiny_patch16_224",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "xcit_nano_12_p16_224",
]

MODELS = [
    *(pytest.param(of_transformers(name), id=name) for name in TRANSFORMERS),
    *(pytest.param(of_timm(name), id=name) for name in TIMM),
]


class Made(TorchFunctionMode):
    """Count the calls of functions that return random tensors: these remain torch's."""

    FUNCTIONS = torch.rand, torch.randn, torch.rand_like, torch.randn_like, torch.randint

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += func in self.FUNCTIONS
        return func(*args, **(kwargs or {}))


def values(model):
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }


@pytest.mark.parametrize("make", MODELS)
def test_seeds_repeat_and_torchs_generator_stays(make):
    def made(seed, own=1):
        torch.manual_seed(own)
        state = torch.random.get_rng_state()
        with fast_init(seed), Made() as makers:
            tensors = values(make())
        stays = torch.equal(state, torch.random.get_rng_state())
        assert stays or makers.count
        return tensors, makers.count

    (first, makers), (again, _), (other, _) = made(3), made(3, 2), made(4)
    random = {name for name in first if not torch.equal(first[name], other[name])}
    assert random
    own = [name for name in random if not torch.equal(first[name], again[name])]
    assert not own or makers  # tensors from torch.rand and so on depend on torch's generator
    assert len(own) <= len(random) / 8


@pytest.mark.parametrize("make", MODELS)
def test_the_draws_are_ours_and_distributed_as_torchs(make):
    """Two-sample Kolmogorov-Smirnov on about 1000 tensors: all together a false alarm in 10^4."""

    def made(seed):
        torch.manual_seed(seed)
        return values(make())

    plain, other = made(1), made(2)
    with fast_init():
        fast = made(1)
    assert plain.keys() == fast.keys()
    random = {name for name in plain if not torch.equal(plain[name], other[name])}
    assert random
    for name, tensor in plain.items():
        got = fast[name]
        assert got.dtype == tensor.dtype and got.shape == tensor.shape
        if name in random:
            assert not torch.equal(got, tensor), name
            some = tensor.flatten()[:10000].float(), got.flatten()[:10000].float()
            assert stats.ks_2samp(*some).pvalue > 1e-7, name
        else:
            assert torch.equal(got, tensor), name
