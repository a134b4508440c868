"""Encoders for masked visual pre-training (ViT, SwinV2, text towers) and the checkpoint contract."""
