"""Makes mmengine, mmcv-lite, mmdet and mmsegmentation usable with any PyTorch from 2.4 on, without a compiler.

Nothing happens on import; `install` is called before a module of those packages is imported, any number of times.
What it does:

- torchvision imports also where its compiled operators do not load (`unveil_backbones.ensure_torchvision`);
- mmengine is imported once with its import-time warnings contained (`third_party_warnings`);
- ``torch.load`` with ``weights_only=True`` reads mmengine's own checkpoints (`allow_mmengine_checkpoints`);
- mmcv-lite, which ships the Python half of every operator but not the compiled one, gets a stand-in for
  ``mmcv._ext`` (`install_operators`); a compiled ``mmcv._ext`` is used untouched.
"""

from unveil_evalharness.compat.checkpoints import allow_mmengine_checkpoints
from unveil_evalharness.compat.extension import OperatorNotOfferedError, install_operators
from unveil_evalharness.compat.install import install
from unveil_evalharness.compat.noise import third_party_stdout, third_party_warnings

__all__ = [
    "OperatorNotOfferedError",
    "allow_mmengine_checkpoints",
    "install",
    "install_operators",
    "third_party_stdout",
    "third_party_warnings",
]
