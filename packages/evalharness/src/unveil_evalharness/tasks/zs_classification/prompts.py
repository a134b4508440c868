"""Class names and prompt templates: ImageNet's from open_clip and timm, the user's own from text files.

open_clip carries the names and templates of OpenAI's CLIP, timm the order of ImageNet's synsets; neither downloads
anything for that.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.zs_classification.config import Prompts

__all__ = ["Template", "imagenet_names", "lines_of", "own_templates", "templates_for"]

Template = Callable[[str], str]
"""Puts a class name into a sentence."""

_OWN_TEMPLATES = ("templates.txt", "zeroshot_classification_templates.txt")


def imagenet_names() -> dict[str, str]:
    """The class name of each of ImageNet-1K's 1,000 synsets, such as ``n01440764``, in label order."""
    from unveil_backbones import ensure_torchvision

    ensure_torchvision()
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data.imagenet_info import ImageNetInfo

    return dict(zip(ImageNetInfo().label_names(), IMAGENET_CLASSNAMES, strict=True))


def templates_for(prompts: Prompts) -> tuple[Template, ...]:
    """The templates of a protocol."""
    if prompts == "class_name":
        return (str,)
    from unveil_backbones import ensure_torchvision

    ensure_torchvision()
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    return tuple(SIMPLE_IMAGENET_TEMPLATES if prompts == "clip_7" else OPENAI_IMAGENET_TEMPLATES)


def own_templates(folder: Path) -> tuple[Template, ...] | None:
    """Templates that lie beside the images, as CLIP_benchmark's data sets have them; None if there are none.

    One a line, with ``{c}`` or ``{}`` where the class name goes, in ``templates.txt`` or
    ``zeroshot_classification_templates.txt``.

    Raises:
        DataError: the file is empty, or a line has no place for the class name.
    """
    file = next((folder / name for name in _OWN_TEMPLATES if (folder / name).is_file()), None)
    if file is None:
        return None
    lines = lines_of(file)
    odd = [line for line in lines if "{c}" not in line and "{}" not in line]
    if odd or not lines:
        raise DataError(f"{file}: {odd[0] if odd else 'no line'!r}; a template has {{c}} where the class name goes")
    return tuple(_template(line) for line in lines)


def lines_of(file: Path) -> Sequence[str]:
    """The lines of a text file without the empty ones.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from error


def _template(line: str) -> Template:
    def filled(name: str) -> str:
        return line.replace("{c}", name).replace("{}", name)

    return filled
