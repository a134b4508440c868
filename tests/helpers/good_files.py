"""One whole, small and good specimen of everything that the four packages read, to be damaged by tests."""

import dataclasses
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = [
    "COLOURS",
    "Specimens",
    "captioned_shard",
    "checkpoint",
    "coco_folder",
    "flickr_file",
    "image_bytes",
    "image_run",
    "karpathy_file",
    "labelled_images",
    "objectnet_folder",
    "pair_run",
    "results_folder",
    "segmentation_folder",
    "sharded_config",
    "sharded_run",
    "sweep_folder",
    "write_tar",
]

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}
CREATED = "2024-01-01T00:00:00+00:00"


def image_bytes(number: int = 0, *, kind: str = "JPEG", mode: str = "RGB", side: int = 40) -> bytes:
    """A smooth picture that depends on its number; `mode` may be any that Pillow writes as `kind`."""
    rows, cols = np.mgrid[0:side, 0 : side + 4] / side
    phase = np.random.default_rng(number).uniform(0, 6, (3, 3))
    planes = [np.sin(a * 3 * rows + b * 3 * cols + c) * 120 + 128 for a, b, c in phase]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8))
    stream = io.BytesIO()
    if mode == "I;16":
        Image.fromarray((planes[0] * 256).astype(np.uint16)).save(stream, kind)
    elif mode == "animated":
        image.save(stream, kind, save_all=True, append_images=[image.rotate(90), image.rotate(180)])
    else:
        image.convert(mode).save(stream, kind)
    return stream.getvalue()


def write_tar(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    """A webdataset shard from {key: {extension: bytes}}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, files in samples.items():
            for extension, content in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def captioned_shard(path: Path, numbers: Sequence[int] = range(8)) -> Path:
    """Images with captions in a .json each, and a class in a .cls."""
    names = list(COLOURS)
    return write_tar(
        path,
        {
            f"{number:06d}": {
                "jpg": image_bytes(number),
                "json": json.dumps({"captions": [f"a {names[number % 4]} field number {number}"]}).encode(),
                "cls": str(number % 4).encode(),
            }
            for number in numbers
        },
    )


def labelled_images(root: Path, *, splits: Sequence[str] = ("train", "val"), num: int = 3) -> Path:
    """``imagenet/<split>/<class>/<n>.jpg`` under `root`."""
    for split in splits:
        for label, name in enumerate(COLOURS):
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(num):
                (folder / f"{split}_{label}_{number}.jpg").write_bytes(image_bytes(10 * label + number))
    return root


def coco_folder(root: Path) -> Path:
    """Two splits with instances and captions in COCO's layout."""
    (root / "coco" / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / "coco" / split).mkdir()
        names = [f"{number:012d}.jpg" for number in range(3)]
        for number, name in enumerate(names):
            (root / "coco" / split / name).write_bytes(image_bytes(number))
        images = [{"id": 7 + n, "file_name": name, "height": 40, "width": 44} for n, name in enumerate(names)]
        boxes = [
            {"id": 1 + n, "image_id": 7 + n, "category_id": 2, "bbox": [4.0, 5.0, 20.0, 10.0], "area": 200.0,
             "iscrowd": 0, "segmentation": [[4.0, 5.0, 24.0, 5.0, 24.0, 15.0, 4.0, 15.0]]}
            for n in range(3)
        ]  # fmt: skip
        captions = [{"id": n, "image_id": 7 + n, "caption": f"a field number {n}"} for n in range(3)]
        content = {"images": images, "annotations": boxes, "categories": [{"id": 2, "name": "cat"}]}
        annotations = root / "coco" / "annotations"
        (annotations / f"instances_{split}.json").write_text(json.dumps(content))
        (annotations / f"captions_{split}.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return root


def karpathy_file(root: Path) -> Path:
    """``coco/dataset_coco.json`` with three test images in ``coco/val2014``."""
    folder = root / "coco" / "val2014"
    folder.mkdir(parents=True)
    images = []
    for number in range(3):
        name = f"COCO_val2014_{number:012d}.jpg"
        (folder / name).write_bytes(image_bytes(number))
        sentences = [{"raw": f"a field number {number}", "sentid": number}]
        images.append({"filename": name, "filepath": "val2014", "cocoid": number, "split": "test",
                       "sentences": sentences})  # fmt: skip
    file = root / "coco" / "dataset_coco.json"
    file.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return file


def flickr_file(root: Path, names: Sequence[str] = ("1007129816", "36979")) -> Path:
    """``flickr30k/dataset_flickr30k.json`` with test images of five captions each in ``flickr30k/images``."""
    folder = root / "flickr30k" / "images"
    folder.mkdir(parents=True)
    images = []
    for number, name in enumerate(names):
        (folder / f"{name}.jpg").write_bytes(image_bytes(number))
        sentences = [{"raw": f"field number {number} in words {n}", "sentid": 5 * number + n} for n in range(5)]
        images.append({"filename": f"{name}.jpg", "imgid": number, "split": "test", "sentences": sentences})
    file = root / "flickr30k" / "dataset_flickr30k.json"
    file.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    return file


def objectnet_folder(root: Path) -> Path:
    """``objectnet`` with all of its 113 classes that ImageNet has, an image each, and one that ImageNet lacks."""
    labels = {f"thing_{number:03d}": f"Thing {number:03d}" for number in range(114)}
    for name in list(labels)[:113]:
        (root / "objectnet" / "images" / name).mkdir(parents=True)
        (root / "objectnet" / "images" / name / "a.png").write_bytes(b"opened by nobody here")
    (root / "objectnet" / "mappings").mkdir()
    of_imagenet = {label: f"a {label.lower()} of ImageNet" for label in list(labels.values())[:113]}
    for name, content in (("folder_to_objectnet_label", labels), ("objectnet_to_imagenet_1k", of_imagenet)):
        (root / "objectnet" / "mappings" / f"{name}.json").write_text(json.dumps(content))
    return root


def segmentation_folder(root: Path) -> Path:
    """ADE20K's layout with three classes."""
    folder = root / "ade20k"
    for split in ("training", "validation"):
        for part in ("images", "annotations"):
            (folder / part / split).mkdir(parents=True)
        for number in range(2):
            (folder / "images" / split / f"{number}.jpg").write_bytes(image_bytes(number))
            labels = np.zeros((40, 44), np.uint8)
            labels[5:20, 5:30] = 1 + number
            labels[25:, :] = 3
            Image.fromarray(labels).save(folder / "annotations" / split / f"{number}.png")
    lines = ["Idx\tRatio\tName", "1\t0.3\twall", "2\t0.3\tsky", "3\t0.4\tfloor"]
    (folder / "objectInfo3.txt").write_text("\n".join(lines) + "\n")
    return root


def checkpoint(path: Path, *, step: int = 10, loss: float = 0.5, captions: Sequence[str] = ()) -> Path:
    """A tiny ViT with a validation curve; with `captions`, an image-text pair whose vocabulary knows them."""
    import torch
    import unveil_backbones
    from unveil_backbones.manifest import Manifest, Preprocessing
    from unveil_backbones.passport import Passport, ValPoint

    torch.manual_seed(step)
    encoder = unveil_backbones.create("vit_tiny", image_size=32)
    heads, text, tokenizer_json = None, None, None
    if captions:
        tokenizer = unveil_backbones.WordPieceTokenizer.train(list(captions), 80, length=12)
        tower = unveil_backbones.create_text("text_tiny", tokenizer.vocab_size, tokenizer.length)
        pair = unveil_backbones.ImageTextPair(encoder, tower, embed_dim=16)
        heads, text, tokenizer_json = pair.heads_state(), tower.spec, tokenizer.to_json()
    mask = {"strategy": "random", "ratio": 0.5}
    passport = Passport(
        objective="mae", target_normalisation="patch", reduction="samples", mask=mask, realised_ratio=0.5, mask_seed=3,
        mask_epoch=0, image_size=(32, 32), crop="resize", images_hash="1" * 16, negative_pool=0, dtype="float32",
    )  # fmt: skip
    points = [ValPoint(step=at, loss=loss + 1 / at, standard_error=0.01, num_images=16) for at in (step // 2, step)]
    manifest = Manifest(
        encoder=encoder.spec,
        text=text,
        preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        objective="flip" if captions else "mae",
        mask=dict(mask),
        realised_ratio=0.5,
        seed=0,
        step=step,
        samples_seen=step * 8,
        unique_samples=16 + step,
        tokens_seen=step * 64,
        device_seconds=1.0,
        data_hash=str(step // 10 % 5) * 16,
        num_parameters=encoder.num_parameters,
        versions={"torch": torch.__version__},
        created=CREATED,
        val=tuple(points),
        passport=passport,
    )
    return unveil_backbones.save(path, encoder=encoder, manifest=manifest, heads=heads, tokenizer_json=tokenizer_json)


def _train(config: object, out: Path, **options: object) -> Path:
    """Training (12) and validation (6) shards in `out`/data, a run on them in `out`/run."""
    from unveil_pretrain.loop import train

    places = [captioned_shard(out / "data" / "train.tar", range(12)), captioned_shard(out / "data" / "val.tar")]
    train(config, out=out / "run", train_data=str(places[0]), val_data=str(places[1]), device="cpu",
          progress=False, log=lambda line: None, **options)  # fmt: skip
    return out


def image_run(out: Path) -> Path:
    """A finished run of masked autoencoding on six-step terms: `out`/run, its shards in `out`/data."""
    from unveil_pretrain.recipes import tiny_mae

    small = replace(tiny_mae().objective, decoder_width=32, decoder_depth=1, decoder_heads=2)
    return _train(
        replace(tiny_mae(), objective=small, image_size=(32, 32), steps=4, batch_size=5, warmup_steps=1,
                validate_every=2, checkpoint_every=2, gap_images=4),
        out,
    )  # fmt: skip


def pair_run(out: Path) -> Path:
    """A finished run of image-text training: `out`/run, its shards in `out`/data."""
    from unveil_pretrain.recipes import tiny_flip

    small = replace(tiny_flip().objective, text_length=8, vocab_size=64, embed_dim=16, negative_pool=4)
    return _train(
        replace(tiny_flip(), objective=small, image_size=(32, 32), steps=2, batch_size=6, warmup_steps=1,
                validate_every=2, checkpoint_every=2, gap_images=4),
        out,
    )  # fmt: skip


def sharded_config():
    """The smallest masked autoencoder there is, four steps with a checkpoint behind the second."""
    from unveil_pretrain.recipes import tiny_mae

    small = replace(tiny_mae().objective, decoder_width=32, decoder_depth=1, decoder_heads=2)
    return replace(
        tiny_mae(), objective=small, encoder="vit_micro", image_size=(32, 32), steps=4, batch_size=4, warmup_steps=1,
        validate_every=2, checkpoint_every=2, gap_images=0,
    )  # fmt: skip


def sharded_run(out: Path) -> Path:
    """A run that was killed behind its second step, whose checkpoint lies in parts of two processes: `out`/run."""
    import shutil

    from parts import checkpoint_in_parts

    _train(sharded_config(), out, checkpoint_format="sharded", loggers=())
    shutil.rmtree(out / "run" / "checkpoints" / "step_00000004")
    checkpoint_in_parts(out / "run" / "checkpoints" / "step_00000002")
    shutil.rmtree(out / "run" / "checkpoints" / "old")
    return out


def results_folder(out: Path, *, num: int = 9) -> Path:
    """What `evalharness run` leaves in `out`/results of `num` checkpoints in `out`/checkpoints, by the toy task."""
    import polars
    from toy_task import ToyTask, loader
    from unveil_evalharness.run import RunOptions, run
    from unveil_evalharness.task import Metric, Picture, TaskResult

    class Varied(ToyTask):
        def run(self, context):
            value = 0.5 + 0.05 * (context.checkpoint.manifest.step // 10)
            hits = [index < 20 * value for index in range(20)]
            return TaskResult(
                metrics=(
                    Metric(name="toy.score", value=sum(hits) / 20, baseline=0.5, standard_error=0.1, n=20),
                    Metric(name="toy.loss", value=1.5 - value, baseline=None, standard_error=None, n=20),
                ),
                samples=polars.DataFrame({"key": [f"{index:02d}" for index in range(20)], "score": hits}),
                load_coverage=1.0,
                gallery=(Picture(encoded=image_bytes(1, kind="PNG"), caption="a field", outcome="good"),),
                tables={"extra": polars.DataFrame({"name": ["a"], "value": [1.0]})},
            )

    (out / "data").mkdir(parents=True)
    found = [checkpoint(out / "checkpoints" / f"c{n}", step=10 * n, loss=1 / n) for n in range(1, num + 1)]
    options = RunOptions(ckpt=tuple(found), data_root=out / "data", output_path=out / "results", tasks=("toy",),
                         device="cpu", progress=False)  # fmt: skip
    run(options, load=loader(Varied()))
    return out


def sweep_folder(out: Path, run: Path) -> Path:
    """A sweep of two cells in `out`, one of them done (a copy of `run`), the other failed."""
    import shutil

    from unveil_pretrain.planning.plans import Cell, Plan
    from unveil_pretrain.sweeping.folder import Data, SweepFolder

    cells = (Cell(recipe="tiny_mae", steps=4, name="done"), Cell(recipe="tiny_mae", steps=9, name="failed"))
    folder = SweepFolder(out)
    values = {
        field.name: {"train_data": "t.tar", "val_data": "v.tar", "data_hash": "0" * 64}.get(field.name)
        for field in dataclasses.fields(Data)
    }
    values["num_images"] = 12
    folder.claim(Plan(cells=cells, num_images=12, notes=("by hand",)), Data(**values))
    shutil.copytree(run, folder.run_path(cells[0]))
    folder.note("submitted", cells[0], job="1")
    folder.note("failed", cells[1], job="2", reason="out of memory")
    (out / "outcomes" / "failed.json").write_text('{"code": 1, "reason": "out of memory", "seconds": 2.0}\n')
    return out


class Specimens:
    """Whole specimens, each made when it is first asked for, as in `specimens / "image"`; not to be changed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __truediv__(self, name: str) -> Path:
        path = self._root / name
        if not path.exists():
            _MAKERS[name](path) if name != "sweep" else sweep_folder(path, self / "image" / "run")
        return path


_MAKERS = {
    "image": image_run,
    "pair_run": pair_run,
    "sharded": sharded_run,
    "eval": results_folder,
    "labelled": labelled_images,
    "coco": coco_folder,
    "karpathy": lambda path: karpathy_file(path),
    "flickr30k": flickr_file,
    "objectnet": objectnet_folder,
    "ade20k": segmentation_folder,
    "pair": lambda path: checkpoint(path, captions=("a red field", "a green field")),
    "one": lambda path: checkpoint(path),
}
