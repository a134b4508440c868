"""Checkpoints of several processes: read by any other number of them, exported by one, written in the background."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from unveil_backbones import load, verify
from unveil_backbones.errors import ShardedCheckpointError
from unveil_pretrain.cli import main
from unveil_pretrain.config import config_to_json
from unveil_pretrain.tensor_parts import StoredTensors

RUN = """
import json, sys
from pathlib import Path
from unveil_pretrain import loop
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.stored_config import config_from_json

out, train_data, val_data, config, kind, options = sys.argv[1:]
loop.train(
    config_from_json(json.loads(config)), out=Path(out), train_data=train_data, val_data=val_data, device="cpu",
    parallel=Parallel(**json.loads(kind)), progress=False, log=lambda line: print("said: " + line), loggers=(),
    **json.loads(options),
)
"""


@pytest.fixture(scope="module")
def config(mae_config):
    return replace(
        mae_config, steps=4, batch_size=4, warmup_steps=1, validate_every=2, checkpoint_every=2, gap_images=0
    )


@pytest.fixture
def train(in_processes, tmp_path, shards, config):
    def run(name, num, kind, *, shard_over=0, **options):
        parallel = {"kind": kind, "shard_over": shard_over}
        given = (json.dumps(config_to_json(config)), json.dumps(parallel), json.dumps(options))
        in_processes(num, RUN, tmp_path / name, *shards, *given)
        return tmp_path / name

    return run


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def step(run, number):
    return run / "checkpoints" / f"step_{number:08d}"


def same_bits(one, two):
    left, right = load_file(one), load_file(two)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def half_done(run, folder):
    """The run as it was after its first checkpoint."""
    shutil.copytree(run, folder)
    shutil.rmtree(step(folder, 4))
    return folder


@pytest.mark.slow
def test_shards_of_two_processes_continue_on_any_number(train, tmp_path, capsys):
    """Equal bits where the arithmetic is the same; else 1e-5 relative, since sums of float32 are in another order."""
    whole = train("whole", 2, "fsdp", checkpoint_format="sharded")
    files = sorted(file.name for file in (step(whole, 2) / "weights").iterdir())
    assert files == [f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)]
    assert verify(step(whole, 2)).ok
    with pytest.raises(ShardedCheckpointError, match=r"pretrain export .*step_00000002 --out DIR"):
        load(step(whole, 2))
    assert load(whole).manifest.step == 4  # the last one is of the contract
    for num, kind in ((2, "fsdp"), (1, "ddp"), (4, "fsdp"), (2, "ddp")):
        half_done(whole, tmp_path / f"{num}{kind}")
        again = train(f"{num}{kind}", num, kind)
        assert losses(again)[:2] == losses(whole)[:2]
        assert losses(again) == pytest.approx(losses(whole), rel=1e-5)
        if (num, kind) == (2, "fsdp"):
            assert losses(again) == losses(whole)
            same_bits(step(again, 4) / "encoder.safetensors", step(whole, 4) / "encoder.safetensors")
    # What one process exports are the weights that whole copies would have had.
    main(["export", str(step(whole, 2)), "--out", str(tmp_path / "exported")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "exported")
    exported = load(tmp_path / "exported")
    assert exported.manifest.step == 2
    assert not (tmp_path / "exported" / "train_state").exists()
    contract = train("contract", 2, "fsdp", async_checkpoints=True)
    assert losses(contract) == losses(whole)
    for name in ("encoder.safetensors", "heads.safetensors"):
        same_bits(tmp_path / "exported" / name, step(contract, 2) / name)
        same_bits(step(whole, 4) / name, step(contract, 4) / name)
    for number in (2, 4):  # the second was copied into the memory of the first
        one, two = (StoredTensors(step(run, number) / "train_state").read() for run in (whole, contract))
        assert one.keys() == two.keys()
        assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.slow
def test_whole_copies_of_two_processes_continue_on_any_number(train, tmp_path):
    whole = train("whole", 2, "ddp", async_checkpoints=True)
    for num, kind in ((2, "ddp"), (1, "ddp"), (4, "ddp"), (2, "fsdp")):
        half_done(whole, tmp_path / f"{num}{kind}")
        again = train(f"{num}{kind}", num, kind)
        assert losses(again) == pytest.approx(losses(whole), rel=1e-5)
        if (num, kind) == (2, "ddp"):
            assert losses(again) == losses(whole)
            for name in ("encoder.safetensors", "train_state/optimizer.safetensors"):
                same_bits(step(again, 4) / name, step(whole, 4) / name)


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True], ids=["at_once", "behind"])
def test_shards_with_copies_are_written_once_and_continue_on_any_number(train, tmp_path, capsys, asynchronous):
    """Two copies, each over two processes (--shard-over 2 of 4); read by 4 again, by 2 and by 1, whole or in shards."""
    whole = train("whole", 4, "fsdp", shard_over=2, checkpoint_format="sharded", async_checkpoints=asynchronous)
    assert verify(step(whole, 2)).ok
    parts = sum(file.stat().st_size for file in (step(whole, 2) / "weights").iterdir())
    contract = sum((step(whole, 4) / name).stat().st_size for name in ("encoder.safetensors", "heads.safetensors"))
    assert parts < 1.2 * contract  # headers; two copies would be twice as much
    others = (
        [(4, "fsdp", 2)]
        if asynchronous
        else [(4, "fsdp", 2), (4, "fsdp", 0), (2, "fsdp", 0), (2, "ddp", 0), (1, "ddp", 0)]
    )
    for num, kind, shard_over in others:
        name = f"{num}{kind}{shard_over}"
        half_done(whole, tmp_path / name)
        again = train(name, num, kind, shard_over=shard_over)
        assert losses(again)[:2] == losses(whole)[:2]
        assert losses(again) == pytest.approx(losses(whole), rel=1e-5)
        if shard_over:
            assert losses(again) == losses(whole)
            same_bits(step(again, 4) / "encoder.safetensors", step(whole, 4) / "encoder.safetensors")
    main(["export", str(step(whole, 2)), "--out", str(tmp_path / "exported")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "exported")
    whole_copies = train("contract", 4, "fsdp", shard_over=2)
    for name in ("encoder.safetensors", "heads.safetensors"):
        same_bits(tmp_path / "exported" / name, step(whole_copies, 2) / name)
