"""Evaluate masked pre-training checkpoints on four downstream tasks and relate the results to the validation loss."""
