"""A checkpoint as two processes write it: the tensors of a file again, half of each in a part of its own."""

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

__all__ = ["checkpoint_in_parts"]


def checkpoint_in_parts(checkpoint: Path) -> Path:
    """Put the checkpoint of a run that one process wrote (`--checkpoint-format sharded`) into parts of two.

    Its weights and its optimiser are the same numbers afterwards, and the manifest has the hashes of the parts.
    """
    from unveil_backbones import build
    from unveil_backbones.sharded import open_sharded, save_sharded

    opened, position = open_sharded(checkpoint), Path("train_state", "position.json")
    new = checkpoint.with_name(f"new_{checkpoint.name}")

    def fill(folder: Path) -> None:
        for name in ("weights", "train_state"):
            (folder / name).mkdir()
        _on_two_processes(
            [
                (checkpoint / "weights" / "weights.safetensors", folder / "weights"),
                (checkpoint / "train_state" / "optimizer.safetensors", folder / "train_state"),
            ],
            store=checkpoint.with_name("store"),
        )
        (folder / position).write_bytes((checkpoint / position).read_bytes())

    encoder, manifest = build(opened.manifest.encoder), replace(opened.manifest, files={})
    save_sharded(new, encoder=encoder, manifest=manifest, fill=fill, tokenizer_json=opened.tokenizer_json)
    checkpoint.rename(checkpoint.with_name("old"))
    return new.rename(checkpoint)


def _on_two_processes(jobs: Sequence[tuple[Path, Path]], *, store: Path) -> None:
    # Not forked from here, where threads may exist.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unveil_pretrain.tensor_parts"])
    started = [context.Process(target=_write_half, args=(rank, tuple(jobs), store)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
        process.kill()
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    store.unlink(missing_ok=True)


def _write_half(rank: int, jobs: Sequence[tuple[Path, Path]], store: Path) -> None:
    """What one of the two processes does: its half of every tensor that can be cut, by the run's own writer."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist
    from safetensors.torch import load_file
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from unveil_pretrain.tensor_parts import write_tensors

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(store), 2), rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for source, folder in jobs:
        whole = load_file(source)
        cut = {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in whole.items() if value.ndim}
        rest = {name: value for name, value in whole.items() if not value.ndim}
        write_tensors(folder, "whole.safetensors", cut | rest, writes=rank == 0)
    dist.destroy_process_group()
