"""Peak memory of one thing in a process of its own: ``python -m benchmarks._flip_memory cpu|cuda WHAT NUMBERS``.

Prints two numbers: bytes resident before the work, and the most during it; on a GPU those that PyTorch has allocated. A
fresh process is the only honest way on a CPU, where freed memory stays with the allocator. Products are in bfloat16 on
a GPU and in float32 on a CPU.
"""

import subprocess
import sys

import torch
from unveil_backbones import ensure_torchvision
from unveil_backbones.pair_presets import create_pair
from unveil_pretrain.contrastive import info_nce

from benchmarks._clip import OurStep
from benchmarks._memory import high_water_mark, resident

__all__ = ["main", "peak_of"]


def peak_of(*words: str, device: str = "cpu") -> tuple[int, int]:
    """Bytes before the work and at its peak, of ``main`` with these words in a new process."""
    command = [sys.executable, "-m", "benchmarks._flip_memory", device, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, peak = done.stdout.split()[-2:]
    return int(before), int(peak)


def main(device: str, words: list[str]) -> None:
    """Do the work once and print the two numbers."""
    torch.set_num_threads(1)
    on_cpu = device == "cpu"
    match words:
        case ["loss", who, batch, width]:
            ensure_torchvision()
            from open_clip.loss import ClipLoss

            torch.manual_seed(0)
            images, texts = (_unit_vectors(int(batch), int(width), device) for _ in "ab")
            images.requires_grad_()
            texts.requires_grad_()
            scale = torch.tensor(14.0, device=device, requires_grad=True)
            before = resident() if on_cpu else torch.cuda.memory_allocated()
            loss = ClipLoss()(images, texts, scale) if who == "open_clip" else info_nce(images, texts, scale).mean()
            loss.backward()
        case ["step", name, ratio, batch]:
            torch.manual_seed(0)
            pair = create_pair(name)
            config = pair.text.config
            captions = torch.randint(0, config.vocab_size, (int(batch), config.length))
            step = OurStep(pair, captions, float(ratio)).to(device)
            images = torch.randn(int(batch), 3, *pair.encoder.config.image_size).to(device)
            before = resident() if on_cpu else torch.cuda.memory_allocated()
            with torch.autocast(device, torch.bfloat16, enabled=not on_cpu):
                loss = step(images)
            loss.backward()
        case _:
            raise SystemExit(f"unknown work: {words}")
    print(before, high_water_mark() if on_cpu else torch.cuda.max_memory_allocated())


def _unit_vectors(batch: int, width: int, device: str) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(batch, width), dim=1).to(device)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
