"""Measures modules of PyTorch at work."""
