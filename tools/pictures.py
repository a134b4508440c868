"""The pictures of the documents, made of the built-in digit scenes alone.

python tools/pictures.py reconstructions --work runs/pictures    # docs/figures/reconstructions.png
python tools/pictures.py features --work runs/pictures           # docs/figures/features.png, of the same training
python tools/pictures.py detections --results runs/demo/eval     # docs/figures/detections.jpg, of `make demo`
python tools/pictures.py report --work runs/pictures             # docs/figures/report.png, by Chromium

`reconstructions` trains a small MAE with raw pixels as target; a second call finds it trained.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from unveil_backbones import Encoder
    from unveil_pretrain.objectives.base import Objective

__all__ = ["main", "sheet"]

_FIGURES: Final = Path(__file__).resolve().parents[1] / "docs" / "figures"
_STEPS: Final = (25, 100, 200, 400)
_NUM_IMAGES: Final = 6
_SCALE: Final = 2
_GAP: Final = 6


def sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> Image.Image:
    """Pictures in a table with a title over each column.

    Args:
        rows: uint8 pictures [h, w, 3] of one size.
        titles: one for each column.
    """
    height, width = (side * _SCALE for side in rows[0][0].shape[:2])
    top = 16
    page = Image.new("RGB", (len(titles) * (width + _GAP) - _GAP, top + len(rows) * (height + _GAP) - _GAP), "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((column * (width + _GAP) + 2, 2), title, fill="black")
        for number, row in enumerate(rows):
            picture = Image.fromarray(row[column]).resize((width, height), Image.Resampling.NEAREST)
            page.paste(picture, (column * (width + _GAP), top + number * (height + _GAP)))
    return page


def _pretrain(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "unveil_pretrain", *words], check=True)


def _trained(work: Path) -> Path:
    """The run of a small MAE on digit scenes, trained unless it is there."""
    others = ("classification", "detection", "segmentation")
    none = [word for task in others for split in ("train", "val") for word in (f"--num-{task}-{split}", "0")]
    if not (work / "scenes").exists():
        _pretrain("scenes", "--out", str(work / "scenes"), "--num-train", "600", "--num-val", "40", *none)
    shards = work / "scenes" / "shards" / "images"
    places = ("--train-data", f"{shards}/train-*.tar", "--val-data", f"{shards}/val-*.tar", "--out", str(work / "mae"))
    often = ("--checkpoint-every", "25", "--validate-every", "200", "--gap-images", "40")
    _pretrain("mim", "tiny_mae", *places, "--steps", str(_STEPS[-1]), "--no-normalise-target", *often)
    return work / "mae"


def _images(work: Path) -> np.ndarray:
    """Pictures that were not trained on, uint8 [b, h, w, 3]."""
    from unveil_pretrain.data import ImageDataset, open_samples

    samples = open_samples(f"{work}/scenes/shards/images/val-*.tar")
    dataset = ImageDataset(samples, image_size=(64, 64))
    return np.stack([dataset.val_example(number).image.numpy().transpose(1, 2, 0) for number in range(_NUM_IMAGES)])


def _restored(run: Path, step: int) -> "Objective":
    from unveil_backbones import load
    from unveil_pretrain.restoring import restore_objective

    return restore_objective(load(run / "checkpoints" / f"step_{step:08d}"), {})[1].eval()


def reconstructions(given: argparse.Namespace) -> Path:
    """What MAE makes of hidden patches, after more and more steps; kept patches are shown as they are."""
    run = _trained(given.work)
    pictures = _images(given.work)
    columns = [pictures, _masked(_restored(run, _STEPS[0]), pictures)]
    columns += [_reconstructed(_restored(run, step), pictures) for step in _STEPS]
    rows = [[column[number] for column in columns] for number in range(_NUM_IMAGES)]
    path = _FIGURES / "reconstructions.png"
    sheet(rows, ["image", "what MAE sees", *(f"{step} steps" for step in _STEPS)]).quantize(128).save(
        path, optimize=True
    )
    return path


def _normalised(pictures: np.ndarray) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Pixels [b, 3, h, w] as the recipe wants them, with its mean and deviation [3, 1, 1]."""
    from unveil_pretrain.recipes import tiny_mae

    mean, std = (np.array(values)[:, None, None] for values in (tiny_mae().pixel_mean, tiny_mae().pixel_std))
    return (pictures.transpose(0, 3, 1, 2) / 255 - mean) / std, mean, std


def _masked(objective: "Objective", pictures: np.ndarray) -> np.ndarray:
    hidden = _hidden_pixels(objective, len(pictures))
    return np.where(hidden, np.uint8(128), pictures)


def _hidden_pixels(objective: "Objective", count: int) -> np.ndarray:
    """Bool [b, h, w, 1]: the mask of each picture."""
    mask = _partition(objective, count).mask.numpy().reshape(count, 8, 8)
    return np.kron(mask, np.ones((1, 8, 8), dtype=bool))[..., None]


def _partition(objective: "Objective", count: int):  # noqa: ANN202  # of unveil_masking, which is generic
    import torch
    from unveil_masking import Grid
    from unveil_pretrain.objectives.mae import MAE

    assert isinstance(objective, MAE)
    return objective.strategy.sample(Grid(8, 8), torch.arange(count), seed=1)


def _reconstructed(objective: "Objective", pictures: np.ndarray) -> np.ndarray:
    """The pictures with hidden patches as the decoder predicts them."""
    import torch
    from unveil_backbones.position import sin_cos_position
    from unveil_pretrain.objectives.mae import MAE

    assert isinstance(objective, MAE)
    pixels, mean, std = _normalised(pictures)
    part = _partition(objective, len(pictures))
    with torch.no_grad():
        kept = objective.encoder.embed(torch.from_numpy(pixels).float(), part.keep)
        latent = objective.encoder.encode(kept, (8, 8), part.keep)
        places = sin_cos_position(8, 8, objective.decoder.width, base_rows=8, base_cols=8, device=latent.device)
        predicted = objective.decoder(latent, part, places, num_prefix=1, permuted=False)
    patches = np.zeros((len(pictures), 64, 8 * 8 * 3))
    np.put_along_axis(patches, part.hidden.numpy()[..., None], predicted.numpy(), axis=1)
    image = patches.reshape(-1, 8, 8, 8, 8, 3).transpose(0, 5, 1, 3, 2, 4).reshape(-1, 3, 64, 64)
    shown = np.clip((image * std + mean) * 255, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.where(_hidden_pixels(objective, len(pictures)), shown, pictures)


def features(given: argparse.Namespace) -> Path:
    """The first three principal components of the tokens of all pictures, as red, green and blue."""
    run = _trained(given.work)
    pictures = _images(given.work)
    columns = [pictures]
    columns += [_components(_restored(run, step).encoder, pictures) for step in _STEPS]
    rows = [[column[number] for column in columns] for number in range(_NUM_IMAGES)]
    path = _FIGURES / "features.png"
    sheet(rows, ["image", *(f"{step} steps" for step in _STEPS)]).quantize(128).save(path, optimize=True)
    return path


def _components(encoder: "Encoder", pictures: np.ndarray) -> np.ndarray:
    import torch

    pixels = torch.from_numpy(_normalised(pictures)[0]).float()
    with torch.no_grad():
        tokens = encoder.encode(encoder.embed(pixels), (8, 8))[:, encoder.num_prefix_tokens :].numpy()
    flat = tokens.reshape(-1, tokens.shape[2])
    flat = flat - flat.mean(axis=0)
    directions = np.linalg.svd(flat, full_matrices=False)[2][:3]
    scores = flat @ (directions * np.sign(directions.sum(axis=1, keepdims=True))).T
    low, high = np.percentile(scores, [2, 98], axis=0)
    shown = (np.clip((scores - low) / (high - low), 0, 1) * 255).astype(np.uint8).reshape(-1, 8, 8, 3)
    return shown.repeat(8, axis=1).repeat(8, axis=2)


def detections(given: argparse.Namespace) -> Path:
    """Four pictures that the task coco_det kept in the gallery of an evaluation of digit scenes."""
    found = sorted(given.results.glob("gallery/coco_det-*/*.jpg"))[:4]
    if len(found) < 4:
        raise SystemExit(
            f"{given.results} has no gallery of coco_det; run `make demo` first, or give another --results"
        )
    pictures = [Image.open(path).convert("RGB") for path in found]
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    page = Image.new("RGB", (2 * width + _GAP, 2 * height + _GAP), "white")
    for number, picture in enumerate(pictures):
        page.paste(picture, (number % 2 * (width + _GAP), number // 2 * (height + _GAP)))
    path = _FIGURES / "detections.jpg"
    page.save(path, quality=88)
    return path


def report(given: argparse.Namespace) -> Path:
    """The head of the report on the published runs, as Chromium shows it."""
    from playwright.sync_api import sync_playwright

    folder = given.work / "published"
    words = ("report", "--published", "xie2023", "--output", str(folder), "--no-figures", "--format", "html")
    subprocess.run([sys.executable, "-m", "unveil_evalharness", *words], check=True)
    browser = os.environ.get("UNVEIL_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    path = _FIGURES / "report.png"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1000, "height": 760})
        page.goto((folder / "report.html").resolve().as_uri())
        page.screenshot(path=path)
        chromium.close()
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw one picture and print its path."""
    makers = {"reconstructions": reconstructions, "features": features, "detections": detections, "report": report}
    parser = argparse.ArgumentParser(description="Draw a picture of the documents.")
    parser.add_argument("picture", choices=makers)
    parser.add_argument("--work", type=Path, default=Path("runs/pictures"), help="folder for data and trainings")
    parser.add_argument("--results", type=Path, default=Path("runs/demo/eval"), help="an output folder of evalharness")
    given = parser.parse_args(arguments)
    _FIGURES.mkdir(exist_ok=True)
    given.work.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"{makers[given.picture](given)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
