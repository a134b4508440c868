"""Image classification by a linear layer on frozen features."""
