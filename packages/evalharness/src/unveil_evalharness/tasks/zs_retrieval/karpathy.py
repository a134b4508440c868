"""Karpathy's ``dataset_coco.json`` and ``dataset_flickr30k.json``: the images of the test split and where they are.

The files list every image with ``split``, ``filename`` and ``sentences``; COCO's also with ``filepath`` (the folder of
the 2014 release) and ``cocoid``, by which the same photograph is found in the 2017 release. The split is that of
Karpathy and Fei-Fei, arXiv 1412.2306.
"""

from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_file

from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import inside

__all__ = ["ANNOTATIONS", "read_test_split"]

ANNOTATIONS = {"coco": "coco/dataset_coco.json", "flickr30k": "flickr30k/dataset_flickr30k.json"}
"""Where each file is under a data root."""

_FLICKR_FOLDERS = ("flickr30k-images", "flickr30k_images", "images", "Images")


def read_test_split(annotations: Path) -> list[tuple[Path, list[Any]]]:
    """Image file and captions of every image with ``split`` equal to ``test``, in the file's order.

    Captions are the ``raw`` sentences by ``sentid``. A file that is nowhere is returned at its first possible place.

    Raises:
        DataError: the file is not of Karpathy's format or holds no test image.
    """
    try:
        images = [image for image in parse_json(annotations.read_bytes())["images"] if image["split"] == "test"]
        records = [
            (
                _found(_places(annotations.parent, image)),
                [sentence["raw"] for sentence in sorted(image["sentences"], key=lambda sentence: sentence["sentid"])],
            )
            for image in images
        ]
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{annotations} is not in the format of Karpathy's splits: {type(error).__name__}: {error}"
        ) from error
    if not records:
        raise DataError(f"{annotations} holds no image of the split 'test'; take the original file")
    return records


def _places(folder: Path, image: dict[str, Any]) -> list[Path]:
    name, where = image["filename"], f"{folder.name}/dataset_*.json"
    if "cocoid" not in image:
        return [inside(folder / sub, name, where) for sub in _FLICKR_FOLDERS]
    of_2014 = [inside(inside(folder, image.get("filepath", "val2014"), where), name, where)]
    return of_2014 + [folder / sub / f"{image['cocoid']:012d}.jpg" for sub in ("val2017", "train2017")]


def _found(places: list[Path]) -> Path:
    return next((place for place in places if is_file(place)), places[0])
