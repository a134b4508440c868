"""Keeps the prints and warnings of third-party packages away from standard output and from the caller's filters.

mmengine logs to standard output, pycocotools prints there; standard output of ``evalharness run`` belongs to
the result table. Warnings are filtered only between ``with`` and its end: nothing here is process-wide.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator

__all__ = ["third_party_stdout", "third_party_warnings"]

_MODULES = r"(mmengine|mmcv|mmdet|mmseg|pycocotools|terminaltables|addict|pkg_resources)(\..*)?"


@contextlib.contextmanager
def third_party_warnings() -> Iterator[None]:
    """Silences, inside the block, warnings that OpenMMLab code causes and that its user cannot act on.

    - anything raised in a module of mmengine, mmcv, mmdet, mmseg or pycocotools;
    - torch's deprecation of ``torch.jit``, which mmengine's import of ``torch.distributed.optim`` triggers.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_MODULES)
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        # Invalid escape sequences, reported when a module is compiled for the first time.
        warnings.filterwarnings("ignore", category=SyntaxWarning)
        warnings.filterwarnings("ignore", message="invalid escape sequence", category=DeprecationWarning)  # Python 3.11
        yield


@contextlib.contextmanager
def third_party_stdout() -> Iterator[None]:
    """Sends what is printed inside the block to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
