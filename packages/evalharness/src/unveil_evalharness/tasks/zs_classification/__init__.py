"""Zero-shot classification by class names: ImageNet, its robustness suite, or any image folder."""
