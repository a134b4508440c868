"""The pre-training tasks: one file each, all behind the protocol in `base`."""
