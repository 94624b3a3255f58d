"""The elements once more, for the memory of GPUs: the kernels of csrc/, written in Triton.

The files are those of csrc/: ``philox``, ``elementary`` (there math), ``uniform``, ``normal``,
``truncated``, ``narrow`` and ``loops``; ``fill`` launches them. Coefficients and parameters are
read from C. A device computes the same operations in the same order, each rounded once, so its
bits are those of the CPU. docs/gpu.md describes how this is checked.
"""
