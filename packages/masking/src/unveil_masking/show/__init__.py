"""Pictures of masks: `python -m unveil_masking show`. Needs the extra `unveil-masking[show]`, which is Pillow."""
