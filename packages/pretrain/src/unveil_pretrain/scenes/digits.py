"""The source images: the 1797 handwritten digits of 8×8 pixels that ship inside scikit-learn.

They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, CC BY 4.0).
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from unveil_pretrain.errors import DataError

__all__ = ["DIGIT_NAMES", "DigitBank", "Split", "load_digit_bank", "split_of"]

Split = Literal["train", "val"]

DIGIT_NAMES: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_VAL_SHARE: Final = 4  # one digit in four is kept for validation


@dataclass(frozen=True, slots=True)
class DigitBank:
    """Digits of one split.

    Attributes:
        images: uint8 [n, 8, 8], ink from 0 to 255.
        labels: int64 [n], 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def of_class(self, digit: int) -> np.ndarray:
        """Indices (int64) of one digit's images."""
        return np.flatnonzero(self.labels == digit)


def split_of(pixels: bytes) -> Split:
    """Split of a source digit, from a hash of its pixels: equal drawings, should there be any, share a split."""
    return "val" if hashlib.blake2b(pixels, digest_size=8).digest()[0] % _VAL_SHARE == 0 else "train"


def load_digit_bank(split: Split) -> DigitBank:
    """The digits of one split.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "digit scenes need scikit-learn and pycocotools; install them with: pip install 'unveil-pretrain[scenes]'"
        ) from error
    flat, labels = load_digits(return_X_y=True)
    raw = np.asarray(flat).astype(np.uint8).reshape(-1, 8, 8)  # ink from 0 to 16
    chosen = np.array([split_of(image.tobytes()) == split for image in raw])
    images = np.minimum(raw[chosen].astype(np.int64) * 255 // 16, 255).astype(np.uint8)
    return DigitBank(images=images, labels=np.asarray(labels)[chosen].astype(np.int64))
