"""The encoder that a task trains: the checkpoint's weights in a fresh module with the task's own regularisation."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import unveil_backbones.base

__all__ = ["fresh_encoder", "scaled_windows"]


def scaled_windows(windows: list[int], *, pretraining: int, finetuning: int) -> list[int]:
    """Attention windows for another image side, in proportion to it where that gives whole numbers, else unchanged.

    Swin V2 pre-trained at 192 pixels with windows of 12 is fine-tuned at 224 with windows of 14: the same number of
    windows per image (SimMIM's fine-tune configurations).

    Args:
        windows: window side of each stage, in tokens.
        pretraining: image side of pre-training in pixels.
        finetuning: image side of the task in pixels.
    """
    if any(window * finetuning % pretraining for window in windows):
        return list(windows)
    return [window * finetuning // pretraining for window in windows]


def fresh_encoder(
    encoder: "unveil_backbones.base.Encoder", *, drop_path: float, image_side: int | None = None
) -> "unveil_backbones.base.Encoder":
    """A new encoder with the weights of `encoder`; `encoder` itself stays as it is.

    Args:
        encoder: the checkpoint's encoder.
        drop_path: stochastic depth of the last block in the new encoder.
        image_side: side of the task's images, to scale a windowed encoder's windows (see `scaled_windows`); None
            keeps the windows of pre-training.

    Raises:
        RuntimeError: torch's own, when a tensor is missing, unexpected or of another shape.
    """
    from unveil_backbones.encoder import build
    from unveil_backbones.specs import EncoderSpec

    config = {**encoder.spec.config, "drop_path": drop_path}
    size, windows = config["image_size"], config.get("window_sizes")
    if image_side is not None and isinstance(windows, list) and isinstance(size, list):
        sides = [window for window in windows if isinstance(window, int)]
        pretraining = size[0]
        assert isinstance(pretraining, int)
        config["window_sizes"] = list(scaled_windows(sides, pretraining=pretraining, finetuning=image_side))
    fresh = build(EncoderSpec(encoder.spec.name, config))
    fresh.load_state_dict(encoder.state_dict(), strict=True)
    return fresh
