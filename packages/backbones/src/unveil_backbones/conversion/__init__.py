"""Foreign checkpoints: how files of other programs become ours, and ours theirs.

``reading`` gets tensors out of a file without running anything in it; ``sources`` finds the files; ``layouts`` knows
the formats; each layout (``simmim``, ``mae``, ``timm_models``, ``clip_models``, ``dino``, ``huggingface``) says which
of our tensors is which of theirs; ``ledger`` sees to it that none is left over; ``incoming`` and ``outgoing`` put these
together. The public face is ``unveil_backbones.convert``.
"""
