"""Masked visual pre-training: SimMIM, MAE and FLIP loops with a validation loss one can trust."""
