"""Models of transformers and timm inside fast_init: they repeat, and are distributed as torch's."""

import functools

import pytest
import timm
import torch
import transformers
from scipy import stats
from torch.overrides import TorchFunctionMode

from winit_fast.torch import fast_init

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = LAYERS | {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 200}
GROUPED = TEXT | {"num_key_value_heads": 2, "head_dim": 16}
IMAGE = LAYERS | {"hidden_size": 64, "intermediate_size": 96, "image_size": 32, "patch_size": 8}
BOTH = {
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "d_model": 64,
    "vocab_size": 200, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
TRANSFORMERS = {
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4},
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": GROUPED,
    "Qwen3MoeForCausalLM": GROUPED | {"num_experts": 4, "moe_intermediate_size": 32},
    "Gemma2ForCausalLM": GROUPED,
    "Phi3ForCausalLM": GROUPED | {"pad_token_id": 0},
    "GPT2LMHeadModel": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "GPTNeoXForCausalLM": TEXT,
    "OPTForCausalLM": TEXT | {"word_embed_proj_dim": 64, "ffn_dim": 96},
    "BloomForCausalLM": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "FalconForCausalLM": LAYERS | {"hidden_size": 64, "vocab_size": 200},
    "MambaForCausalLM": TEXT | {"state_size": 8},
    "Mamba2ForCausalLM": TEXT | {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1},
    "T5ForConditionalGeneration": {
        "d_model": 64, "d_ff": 96, "num_layers": 2, "num_heads": 4, "d_kv": 16, "vocab_size": 200,
    },
    "BartForConditionalGeneration": BOTH,
    "BertForMaskedLM": TEXT,
    "RobertaForMaskedLM": TEXT,
    "ElectraForPreTraining": TEXT | {"embedding_size": 32},
    "DistilBertForMaskedLM": {
        "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "vocab_size": 200,
    },
    "DebertaV2ForMaskedLM": TEXT,
    "ViTForImageClassification": IMAGE,
    "Dinov2Model": IMAGE,
    "SwinModel": {
        "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "image_size": 32, "window_size": 4,
    },
    "ConvNextModel": {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "CLIPModel": {"text_config": TEXT, "vision_config": IMAGE},
    "WhisperForConditionalGeneration": BOTH,
}  # fmt: skip
TIMM = {
    "test_vit": {},
    "test_vit2": {},
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_byobnet": {},
    "test_nfnet": {},
    "test_mambaout": {},
    "vit_tiny_patch16_224": {"depth": 1},
    "mobilenetv3_small_050": {},
    "mobilevit_xxs": {},
    "xcit_nano_12_p16_224": {"depth": 1},
}


def of_transformers(name):
    model = getattr(transformers, name)
    return lambda: model(model.config_class(**TRANSFORMERS[name]))


def of_timm(name):
    return functools.partial(timm.create_model, name, **TIMM[name])


MODELS = [
    *(pytest.param(of_transformers(name), id=name) for name in TRANSFORMERS),
    *(pytest.param(of_timm(name), id=name) for name in TIMM),
]


class Made(TorchFunctionMode):
    """Count the calls of the functions that make random tensors: these stay torch's."""

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
    assert not own or makers  # what torch.rand makes follows torch's generator
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
