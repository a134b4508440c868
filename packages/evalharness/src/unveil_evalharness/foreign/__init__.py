"""Checkpoints of other programs on the command line: timm's and open_clip's models by name, and files of any format."""
