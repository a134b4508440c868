"""The labelled images of a task: all of them, or a class-balanced subset that is always the same."""

from pathlib import Path

from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, balanced, read_folders

__all__ = ["labelled_images"]


def labelled_images(
    data_root: Path, *, max_train: int | None, max_val: int | None, limit: int | None
) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation images under ``data_root/imagenet``.

    Args:
        data_root: holds ``imagenet/``.
        max_train: most training images, by the protocol; None for all.
        max_val: most validation images, by the protocol; None for all.
        limit: most images of either, by the user; None for no further limit.

    Raises:
        DataError: see `unveil_evalharness.tasks.imagenet_ft.data.read_folders`.
    """
    train, val = read_folders(data_root)
    return balanced(balanced(train, max_train), limit), balanced(balanced(val, max_val), limit)
