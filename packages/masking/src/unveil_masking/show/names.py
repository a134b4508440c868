"""Names on the command line, known without Pillow."""

from unveil_masking.show.captions import TEXT_EXHIBITS
from unveil_masking.show.errors import ChoiceError
from unveil_masking.show.exhibits import EXHIBITS

__all__ = ["ALL", "RESIZE", "check_name", "listing"]

ALL = "all"
RESIZE = "resize"


def check_name(name: str) -> None:
    """Refuse a strategy that is not there.

    Raises:
        ChoiceError: with the names there are.
    """
    names = [ALL, *(line[0] for line in listing())]
    if name not in names:
        raise ChoiceError(f"--strategy {name!r} is unknown. Allowed: {', '.join(names)}.")


def listing() -> list[tuple[str, str, str]]:
    """Name, count rule and source of everything that can be shown."""
    images = [(exhibit.name, exhibit.rule, exhibit.source) for exhibit in EXHIBITS]
    resize = (RESIZE, "tokens <= those that a mask of the ratio keeps", "CLIPA")
    texts = [(exhibit.name, f"keeps {exhibit.rule}", exhibit.source) for exhibit in TEXT_EXHIBITS]
    return [*images, resize, *texts]
