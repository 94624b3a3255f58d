"""Adjusts modules of PyTorch to what is seen of them at work."""
