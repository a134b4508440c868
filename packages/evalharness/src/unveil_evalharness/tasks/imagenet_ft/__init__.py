"""Image classification by end-to-end fine-tuning on any ImageFolder."""
