"""Masking strategies for masked visual pre-training: stateless, identical on NumPy and PyTorch."""
