"""How the encoder is fine-tuned and tested: everything that can move the number, and nothing else."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from unveil_evalharness.engine.runner import Precision
from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.tasks.imagenet_ft.recipe import Recipe, choose_recipe
from unveil_evalharness.tasks.imagenet_ft.recipes import published, quick_recipe, shortened

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["ImagenetProtocol", "full", "protocol_for", "quick", "short"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagenetProtocol:
    """One fine-tuning and one evaluation, for encoders of every family and size.

    The papers train a Swin otherwise than a ViT and a large model otherwise than a small one, and put the results into
    one table. So the rule that gives each encoder its recipe is the protocol: one fingerprint over all recipes, and a
    checkpoint's manifest says which of them it gets.
    """

    recipes: tuple[Recipe, ...]
    """Tried in this order; the first that suits the checkpoint is used."""
    image_side: int | Literal["pretraining"]
    """Side of the square images in pixels, or the checkpoint's own image size."""
    test_crop: float
    """Side of the central test crop over the resized shorter side."""
    interpolation: str
    """Resampling filter of training crop and test resize."""
    max_train_images: int | None
    """Class-balanced, fixed subset of the training images; None for all."""
    max_val_images: int | None
    """Class-balanced, fixed subset of the validation images; None for all."""
    in_memory: bool
    """Decode every image once and keep it, its shorter side reduced to at most twice the image side."""
    precision: Precision
    """Arithmetic of training on CUDA; a CPU trains in float32."""

    def __post_init__(self) -> None:
        if not self.recipes:
            raise ProtocolError("a protocol needs at least one recipe")
        last = self.recipes[-1]
        if last.architecture != "any" or last.objectives or last.max_parameters is not None:
            raise ProtocolError(f"the last recipe must suit every encoder, but {last.name!r} does not")

    def recipe(self, manifest: "unveil_backbones.manifest.Manifest") -> Recipe:
        """The recipe for a checkpoint."""
        return choose_recipe(self.recipes, manifest)


def quick() -> ImagenetProtocol:
    """Half a minute on one CPU core: a linear probe, then fifty steps from it, at the checkpoint's image size.

    The number tells checkpoints apart but is not an ImageNet accuracy.
    """
    return ImagenetProtocol(
        recipes=(quick_recipe(),),
        image_side="pretraining",
        test_crop=1.0,
        interpolation="bicubic",
        max_train_images=1000,
        max_val_images=500,
        in_memory=True,
        precision="float32",
    )


def full() -> ImagenetProtocol:
    """The papers' fine-tuning on ImageNet-1K: SimMIM's for Swin, FLIP's after image-text, MAE's for other encoders."""
    return ImagenetProtocol(
        recipes=published(),
        image_side=224,
        test_crop=224 / 256,
        interpolation="bicubic",
        max_train_images=None,
        max_val_images=None,
        in_memory=False,
        precision="bfloat16",
    )


def short() -> ImagenetProtocol:
    """About an hour on one GPU by estimate: `full` cut to 20 epochs of 128 images of each of 1000 classes."""
    return ImagenetProtocol(
        recipes=tuple(shortened(recipe, duration=20, warmup=2, batch_size=1024) for recipe in published()),
        image_side=224,
        test_crop=224 / 256,
        interpolation="bicubic",
        max_train_images=128_000,
        max_val_images=None,
        in_memory=False,
        precision="bfloat16",
    )


def protocol_for(suite: str) -> ImagenetProtocol:
    """The protocol of a suite.

    Raises:
        UnknownSuiteError: a suite other than ``"quick"``, ``"short"`` and ``"full"``.
    """
    match suite:
        case "quick":
            return quick()
        case "short":
            return short()
        case "full":
            return full()
        case _:
            raise UnknownSuiteError(f"imagenet_ft has no suite {suite!r}; choose 'quick', 'short' or 'full'")
