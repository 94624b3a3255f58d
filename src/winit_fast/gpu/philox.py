"""Philox4x32-10, as in csrc/philox-inl.h: counters to words."""

import triton
import triton.language as tl

import winit_fast._core as _core

ROUNDS = tl.constexpr(_core.PHILOX["rounds"])
MULTIPLIERS = tl.constexpr(_core.PHILOX["multipliers"])
INCREMENTS = tl.constexpr(_core.PHILOX["increments"])


@triton.jit
def wide_product(x: tl.tensor, MULTIPLIER: tl.constexpr) -> tl.tensor:
    """Multiply unsigned 32-bit numbers: the high and the low word of the product."""
    product = x.to(tl.uint64) * MULTIPLIER
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def philox(block: tl.tensor, key: tl.tensor, stream: tl.tensor) -> tl.tensor:
    """Compute the four words of each block, given its 64-bit number."""
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2, c3 = stream.to(tl.uint32), (stream >> 32).to(tl.uint32)
    for _ in tl.static_range(ROUNDS):
        high0, low0 = wide_product(c0, MULTIPLIERS[0])
        high1, low1 = wide_product(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, tl.full((), INCREMENTS[0], tl.uint32), sanitize_overflow=False)
        k1 = tl.add(k1, tl.full((), INCREMENTS[1], tl.uint32), sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def double_word(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Join two words to one of 64 bits."""
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)
