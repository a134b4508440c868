"""Image classification by the nearest training images in the space of frozen features."""
