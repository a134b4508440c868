"""What can go wrong while masks are drawn, apart from the errors of the strategies themselves."""

from unveil_masking.errors import MaskingError

__all__ = ["ChoiceError", "MissingPillowError", "PictureError", "ShowError"]


class ShowError(MaskingError):
    """Base of the errors of `unveil_masking.show`."""


class ChoiceError(ShowError):
    """There is no such strategy, or an option does not go with it."""


class PictureError(ShowError):
    """A picture cannot be read or written."""


class MissingPillowError(ShowError):
    """Pillow is not installed."""
