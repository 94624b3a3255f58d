"""Small versions of models of transformers and timm, by the names of their classes."""

import functools

import timm
import torch
import transformers

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
T5 = {"d_model": 64, "d_ff": 96, "num_layers": 2, "num_heads": 4, "d_kv": 16, "vocab_size": 200}
PADDED = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SPEECH = {
    "conv_dim": (32, 32), "conv_stride": (5, 2), "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4, "vocab_size": 40,
}  # fmt: skip
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
          "v_head_dim": 16}  # fmt: skip

TRANSFORMERS = {
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4},
    "Qwen2ForCausalLM": GROUPED,
    "Qwen2MoeForCausalLM": GROUPED
    | {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "Qwen3ForCausalLM": GROUPED,
    "Qwen3MoeForCausalLM": GROUPED
    | {"num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2},
    "Qwen3NextForCausalLM": GROUPED
    | {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
       "num_experts_per_tok": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
       "linear_key_head_dim": 16, "linear_value_head_dim": 16,
       "layer_types": ["linear_attention", "full_attention"]},
    "DeepseekV3ForCausalLM": TEXT | LATENT
    | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
       "moe_intermediate_size": 32, "first_k_dense_replace": 1, "num_key_value_heads": 4},
    "GemmaForCausalLM": GROUPED,
    "Gemma2ForCausalLM": GROUPED,
    "Gemma3ForCausalLM": GROUPED | {"sliding_window": 16},
    "Phi3ForCausalLM": GROUPED | PADDED,
    "PhiForCausalLM": TEXT,
    "Olmo2ForCausalLM": GROUPED | PADDED,
    "GraniteForCausalLM": GROUPED,
    "GptOssForCausalLM": GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "CohereForCausalLM": GROUPED | PADDED,
    "StableLmForCausalLM": TEXT | {"num_key_value_heads": 2},
    "GPT2LMHeadModel": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "GPTNeoForCausalLM": {
        "hidden_size": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 200,
        "attention_types": [[["global", "local"], 1]],
    },
    "GPTNeoXForCausalLM": TEXT,
    "GPTJForCausalLM": {
        "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "vocab_size": 200,
    },
    "OPTForCausalLM": TEXT | {"word_embed_proj_dim": 64, "ffn_dim": 96},
    "BloomForCausalLM": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 200},
    "FalconForCausalLM": LAYERS | {"hidden_size": 64, "vocab_size": 200},
    "MptForCausalLM": {"d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 200},
    "MambaForCausalLM": TEXT | {"state_size": 8},
    "Mamba2ForCausalLM": TEXT | {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1},
    "JambaForCausalLM": TEXT
    | {"num_key_value_heads": 2, "num_experts": 2, "mamba_d_state": 8, "attn_layer_period": 2,
       "attn_layer_offset": 1, "use_mamba_kernels": False} | PADDED,
    "FalconMambaForCausalLM": TEXT | {"state_size": 8},
    "RwkvForCausalLM": {
        "hidden_size": 64, "num_hidden_layers": 2, "attention_hidden_size": 64, "vocab_size": 200,
    },
    "T5ForConditionalGeneration": T5,
    "MT5ForConditionalGeneration": T5,
    "BartForConditionalGeneration": BOTH,
    "MBartForConditionalGeneration": BOTH,
    "PegasusForConditionalGeneration": BOTH,
    "MarianMTModel": BOTH,
    "BertForMaskedLM": TEXT,
    "RobertaForMaskedLM": TEXT,
    "AlbertForMaskedLM": TEXT | {"embedding_size": 32},
    "ElectraForPreTraining": TEXT | {"embedding_size": 32},
    "DistilBertForMaskedLM": {
        "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "vocab_size": 200,
    },
    "DebertaV2ForMaskedLM": TEXT,
    "ModernBertForMaskedLM": TEXT | PADDED | {"cls_token_id": 1, "sep_token_id": 2},
    "XLNetLMHeadModel": {
        "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96, "vocab_size": 200,
    },
    "ViTForImageClassification": IMAGE,
    "DeiTModel": IMAGE,
    "BeitModel": IMAGE,
    "ViTMAEModel": IMAGE,
    "Dinov2Model": IMAGE,
    "SwinModel": {
        "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "image_size": 32, "window_size": 4,
    },
    "Swinv2Model": {
        "embed_dim": 32, "depths": [1, 1], "num_heads": [2, 4], "image_size": 32, "window_size": 4,
    },
    "ConvNextModel": {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "ConvNextV2Model": {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "ResNetModel": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "PoolFormerModel": {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "SegformerModel": {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "CLIPModel": {"text_config": TEXT, "vision_config": IMAGE},
    "SiglipModel": {"text_config": TEXT, "vision_config": IMAGE},
    "LlavaForConditionalGeneration": {
        "text_config": GROUPED | {"model_type": "llama"},
        "vision_config": IMAGE | {"model_type": "clip_vision_model"}, "image_token_index": 199,
    },
    "WhisperForConditionalGeneration": BOTH,
    "Wav2Vec2Model": TEXT | SPEECH,
    "HubertModel": TEXT | SPEECH,
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
    "swin_tiny_patch4_window7_224": {"depths": (1, 1, 1, 1), "embed_dim": 24},
    "beit_base_patch16_224": {"depth": 1, "embed_dim": 48, "num_heads": 4},
    "resmlp_12_224": {},
    "poolformer_s12": {},
}


def of_transformers(name):
    model = getattr(transformers, name)
    return lambda: model(model.config_class(**TRANSFORMERS[name]))


def of_timm(name):
    return functools.partial(timm.create_model, name, **TIMM[name])


def inputs(model):
    """The smallest inputs that a model's forward pass accepts."""
    if not hasattr(model, "main_input_name"):
        return {"x": torch.ones(2, *model.default_cfg["input_size"])}
    ids = torch.arange(8)[None] % 100 + 3
    size = getattr(getattr(model.config, "vision_config", model.config), "image_size", 32)
    size = size if isinstance(size, int) else 32
    given = {
        "input_ids": {"input_ids": ids},
        "pixel_values": {"pixel_values": torch.ones(1, 3, size, size)},
        "input_features": {"input_features": torch.ones(1, 80, 3000)},
        "input_values": {"input_values": torch.ones(1, 1600)},
    }[model.main_input_name]
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    if type(model).__name__ in ("CLIPModel", "SiglipModel"):
        given = {"input_ids": ids, "pixel_values": torch.ones(1, 3, 32, 32)}
    return given
