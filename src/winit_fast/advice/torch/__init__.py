"""Examines modules of PyTorch."""
