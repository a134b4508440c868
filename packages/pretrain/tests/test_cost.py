"""Costs of a run: peaks of devices, utilisation by hand, what a real run records, and the formula against a counter."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from unveil_backbones import Encoder, TextTower, create
from unveil_backbones.flops import block_multiply_adds, count_cost
from unveil_pretrain.cost import PEAKS, peak_of, read_cost, read_tail
from unveil_pretrain.costing import cost_basis, device_name
from unveil_pretrain.errors import ConfigError, OutputError
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.base import BuildContext, Inputs, Objective
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.planning.memory import step_memory
from unveil_pretrain.recipes import flip_b16, simmim_swinv2_s, tiny_flip, tiny_mae, tiny_simmim
from unveil_pretrain.recipes.tiny import tiny_beit, tiny_ijepa, tiny_sparse_simmim, tiny_splitmask

BASIS = {
    "step": 0,
    "device": "NVIDIA H100 80GB HBM3",
    "num_devices": 2,
    "precision": "bfloat16",
    "flops_per_sample": 1e12,
    "counted": ["encoder"],
    "not_counted": ["losses"],
}


def write_run(folder, *, basis, num_rows=5, seconds_per_step=0.5, steps=20, batch_size=8):
    """The files of a run that has done `num_rows` steps."""
    config = {"steps": steps, "batch_size": batch_size}
    (folder / "run.json").write_text(json.dumps({"identity": {"config": config}}))
    rows = [
        {"step": step, "samples_seen": step * batch_size, "seconds": step * seconds_per_step}
        for step in range(1, num_rows + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if basis is not None:
        (folder / "cost.jsonl").write_text(json.dumps(basis) + "\n")


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "float32", 67e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A10", "bfloat16", 125e12),
        ("NVIDIA L40S", "float32", 91.6e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("Tesla V100-SXM2-16GB", "float32", 15.7e12),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16", None),
        ("NVIDIA A100X", "bfloat16", None),
        ("CPU AMD EPYC, 1 threads", "float32", None),
    ],
)
def test_peak_by_name(device, precision, peak):
    assert peak_of(device, precision) == peak


def test_every_peak_has_a_source():
    assert all(peak.source for peak in PEAKS.values())


def test_cost_by_hand(tmp_path):
    write_run(tmp_path, basis=BASIS)
    cost = read_cost(tmp_path, price_per_hour=3.6)
    assert (cost.step, cost.steps, cost.samples) == (5, 20, 40)
    assert cost.samples_per_second == pytest.approx(16.0)  # 2 steps of 8 a second
    assert cost.flops == pytest.approx(40e12)
    assert cost.device_seconds == pytest.approx(5.0)  # 2.5 s on two devices
    assert cost.device_hours == pytest.approx(5 / 3600)
    assert cost.price == pytest.approx(0.005)
    assert cost.mfu == pytest.approx(16e12 / (2 * 989e12))
    assert cost.seconds_left == pytest.approx(7.5)
    assert cost.why_no_mfu is None


@pytest.mark.parametrize(
    ("basis", "why"),
    [
        (None, "no cost.jsonl"),
        (BASIS | {"device": "CPU"}, "peak of 'CPU'"),
        (BASIS | {"flops_per_sample": None}, "not counted"),
    ],
)
def test_unknown_is_not_guessed(tmp_path, basis, why):
    write_run(tmp_path, basis=basis)
    cost = read_cost(tmp_path)
    assert cost.mfu is None
    assert why in cost.why_no_mfu
    assert cost.price is None


def test_before_the_second_step(tmp_path):
    write_run(tmp_path, basis=BASIS, num_rows=1)
    cost = read_cost(tmp_path)
    assert cost.samples_per_second is None
    assert cost.seconds_left is None
    assert "two steps" in cost.why_no_mfu


def test_no_run(tmp_path):
    with pytest.raises(OutputError, match="give the folder of a run"):
        read_cost(tmp_path)


def test_tail_of_a_long_file(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": step, "x": "y" * 90}) + "\n" for step in range(5000)) + '{"step": 50')
    rows = read_tail(file)
    assert rows[-1]["step"] == 4999
    assert 100 < len(rows) < 5000
    assert [row["step"] for row in rows] == list(range(5000 - len(rows), 5000))


def test_neither_torch_nor_timm():
    code = "import sys, unveil_pretrain.cost; print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_real_run_records_its_basis(mae_config, shards, tmp_path):
    out = tmp_path / "run"
    train(mae_config, out=out, train_data=shards[0], val_data=shards[1], log=lambda _: None, progress=False)
    cost = read_cost(out)
    assert cost.step == cost.steps == mae_config.steps
    assert cost.flops == sample_flops(mae_config).total * mae_config.steps * mae_config.batch_size
    assert cost.device == device_name(torch.device("cpu"))
    assert cost.seconds_left == 0.0
    assert "peak" in cost.why_no_mfu


def _built(config):
    """The objective as torch's counter should see it: everything computed the plain way."""
    encoder = create(config.encoder, image_size=config.image_size)
    captions = [f"a {word} thing on a table" for word in ("red", "green", "blue", "big", "small", "odd")] * 40
    context = BuildContext(
        encoder=encoder,
        image_size=config.image_size,
        captions=lambda most: captions[:most],
        tokenizer_json=None,
        images=lambda most: iter([torch.randn(most, 3, *config.image_size)]),
    )
    objective = config.objective.build(context)
    for module in objective.modules():
        if isinstance(module, Objective | Encoder | TextTower):
            module.set_optimisations({"kept_patches"} & set(module.OPTIMISATIONS))
    return objective


def _counted(objective, config, ids, *, backward=False):
    """Operations of a forward pass over these samples as torch counts them, or of a forward and a backward pass."""
    inputs = Inputs(
        torch.randn(len(ids), 3, *config.image_size),
        torch.tensor(ids),
        torch.zeros(len(ids), dtype=torch.int64),
        [f"thing {number}" for number in ids] if config.objective.needs_captions else None,
    )
    with FlopCounterMode(display=False) as counter:
        losses = objective(inputs, seed=0).per_sample
        if backward:
            losses.mean().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("recipe", [tiny_mae, tiny_simmim, tiny_flip])
def test_formula_against_a_counter(recipe):
    config = recipe()
    objective = _built(config)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        two, four = (_counted(objective, config, range(num)) for num in (2, 4))
    counted = (four - two) / 2 * 3  # what is shared by a batch cancels
    assert sample_flops(config).total == pytest.approx(counted, rel=0.001)


WITHOUT_BACKWARD = {"teacher", "tokenizer"}


def _forward(flops):
    return sum(value if name in WITHOUT_BACKWARD else value / 3 for name, value in flops.parts.items())


@pytest.mark.parametrize("recipe", [tiny_splitmask, tiny_beit])
def test_tokens_against_a_counter(recipe):
    """Within 0.1 %: all shapes are fixed. A contrast's similarities are not counted, so it is left out here."""
    config = recipe()
    if recipe is tiny_splitmask:
        config = replace(config, objective=replace(config.objective, contrast_weight=0.0))
    objective = _built(config)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        two, four = (_counted(objective, config, range(num)) for num in (2, 4))
    counted = (four - two) / 2
    if recipe is tiny_splitmask:
        # The decoder's last block computes the 32 hidden tokens of 65 alone; twice, and two operations each.
        counted += 4 * (block_multiply_adds(65, 96) - block_multiply_adds(65, 96, num_rows=32))
    assert _forward(sample_flops(config)) == pytest.approx(counted, rel=0.001)


def test_ijepa_against_a_counter():
    """Within 5 %: 8 samples one by one, so that none is filled up, beside the mean sizes of 1024 masks."""
    config = tiny_ijepa()
    objective, flops = _built(config), sample_flops(config)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        forward = sum(_counted(objective, config, [number]) for number in range(8)) / 8
        both = sum(_counted(objective, config, [number], backward=True) for number in range(8)) / 8
    assert _forward(flops) == pytest.approx(forward, rel=0.05)
    # The teacher has no backward pass; no gradient is wanted of pixels, which is less than 1 % here.
    assert flops.total == pytest.approx(both, rel=0.05)
    assert flops.parts["teacher"] == pytest.approx(count_cost(objective.encoder.spec, image_size=(64, 64)).flops)


def test_sparse_simmim_against_a_counter():
    """Within 5 %: what the counter has more is the filling of segments."""
    config = tiny_sparse_simmim()
    objective, flops = _built(config), sample_flops(config)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        few, many = (_counted(objective, config, range(num)) for num in (8, 40))
    counted = (many - few) / 32
    assert flops.total / 3 == pytest.approx(counted, rel=0.05)
    dense = count_cost(objective.encoder.spec, image_size=config.image_size).training_flops
    assert flops.parts["encoder"] < 0.5 * dense  # 6 of 16 units


@pytest.mark.parametrize("recipe", [tiny_splitmask, tiny_beit, tiny_sparse_simmim])
def test_memory_of_these_is_refused_by_name(recipe):
    with pytest.raises(ConfigError, match=f"memory of {recipe().objective.name} is not known"):
        step_memory(recipe(), micro_batch=1, device="cpu")


def test_sizes_of_the_papers():
    # arXiv:2206.04664's models in multiply-adds at 192 pixels: SwinV2-S has 6.7 G.
    assert sample_flops(simmim_swinv2_s()).parts["encoder"] / 6e9 == pytest.approx(6.7, abs=0.05)
    # FLIP-B/16 at 50 %: half of ViT-B/16's 17.6 G, and a little less for the attention.
    assert sample_flops(flip_b16()).parts["encoder"] / 6e9 == pytest.approx(17.6 / 2, rel=0.03)


def test_basis_is_json(mae_config):
    row = cost_basis(mae_config, step=3, device=torch.device("cpu"), num_devices=2)
    assert json.loads(json.dumps(row))["num_devices"] == 2
    assert row["step"] == 3
