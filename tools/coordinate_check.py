"""Coordinate check: how large activations become with width, under the rules of muP and others.

Trains small Llamas of several widths for a few steps of Adam and prints the mean absolute value of
the residual stream and of the logits, averaged over seeds. Under muP both stay flat; under a
standard parametrisation with one learning rate they grow with width. Needs torch and transformers:

    python tools/coordinate_check.py [RULES ...]

Yang et al., Tensor Programs V, 2022, appendix D.1; the learning rates are those of its table 3.
"""

import sys
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import winit_fast as wf
import winit_fast.torch
from winit_fast.models import Rules, from_config

BASE_WIDTH = 64
WIDTHS = 64, 128, 256, 512
STEPS = 4
SEEDS = 3
RATE = 0.01
HEAD = 16
"""Width of a head: the same at every width, so that attention divides by a constant."""


def small_llama(width: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=256,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
    )


def rates(model: LlamaForCausalLM, width: int, is_mup: bool) -> list[dict[str, object]]:
    """Groups of parameters: under muP the rate of all matrices but the embedding is over width."""
    groups = []
    for name, parameter in model.named_parameters():
        is_vector_like = parameter.ndim < 2 or "embed_tokens" in name
        divisor = 1.0 if is_vector_like or not is_mup else width / BASE_WIDTH
        groups.append({"params": [parameter], "lr": RATE / divisor})
    return groups


def sizes(rules: str, width: int, seed: int) -> tuple[float, float]:
    """Return the mean absolute value of the residual stream and the logits after training."""
    config = small_llama(width)
    loaded = Rules.load(rules)
    if "base_width" in loaded.needs:
        loaded = loaded.with_settings(base_width=BASE_WIDTH)
    plan = from_config(config, form="module").with_rules(loaded)
    model = wf.torch.fill_(LlamaForCausalLM(config), plan, seed=seed)
    optimizer = torch.optim.Adam(rates(model, width, rules == "mup"))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(256, (4, 32), generator=generator)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
    return float(out.hidden_states[-2].abs().mean()), float(out.logits.abs().mean())


def growth(rules: str, widths: Sequence[int] = WIDTHS, seeds: int = SEEDS) -> list[list[float]]:
    """Return, for each width, the mean sizes of the residual stream and the logits."""
    found = []
    for width in widths:
        one = torch.tensor([sizes(rules, width, seed) for seed in range(seeds)])
        found.append(one.mean(dim=0).tolist())
    return found


def main(named: Sequence[str]) -> None:
    for rules in named or ("mup", "gpt2"):
        print(f"{rules}: after {STEPS} steps of Adam\n{'width':>6} {'stream':>8} {'logits':>8}")
        for width, (stream, logits) in zip(WIDTHS, growth(rules), strict=True):
            print(f"{width:6} {stream:8.3f} {logits:8.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
