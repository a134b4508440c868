"""`pretrain plan --cluster`: each formula by hand, how it moves with what it depends on, the command, its document."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_pretrain.cli import main
from unveil_pretrain.planning.cluster import Assumptions, fsdp_bytes, pair_bytes, ring_bytes, step_of
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.recipes import FLIP_RECIPES, mae_vit_l16, simmim_swinv2

KNOWN = Assumptions()
GIVEN = {
    "num_gpus": 16, "sharded": False, "batch": 1600, "steps": 1000, "num_parameters": 1e9, "flops": 1e12, "peak": 1e15,
    "half": True, "pair_width": 0, "micro_batch": 100, "memory": 50e9,
}  # fmt: skip


def test_messages_by_hand():
    assert ring_bytes(800.0, 4) == 2 * 3 / 4 * 800
    assert ring_bytes(800.0, 1) == 0.0
    # Weights of two bytes, forward and backward, for each of 3 micro-batches; gradients of four, once.
    assert fsdp_bytes(100.0, 4, num_micro_batches=3, half=True) == (6 * 0.75 * 200, 0.75 * 400)
    assert fsdp_bytes(100.0, 4, num_micro_batches=1, half=False) == (2 * 0.75 * 400, 0.75 * 400)
    # 8 texts of 16 numbers and 2 x 8 statistics: 144 numbers of four bytes, half of them from elsewhere, and back.
    assert pair_bytes(8, 16, 2) == 0.5 * 144 * 4 + 144 * 4


def test_links_by_hand():
    assert KNOWN.bandwidth(8) == 450e9 * 0.7
    assert KNOWN.bandwidth(9) == 50e9 * 0.7
    assert KNOWN.capacity == pytest.approx(72e9)


def test_a_step_by_hand():
    step = step_of(KNOWN, **GIVEN)
    compute = 1e12 * 1600 / (16 * 1e15 * 0.3)
    messages = 2 * 15 / 16 * 4e9 / 35e9
    assert step.compute_seconds == pytest.approx(compute)
    assert step.message_seconds == pytest.approx(messages)
    assert step.seconds == pytest.approx(compute + 0.5 * messages)
    assert step.mfu == pytest.approx(0.3 * compute / (compute + 0.5 * messages))
    assert step.samples_per_second == pytest.approx(1600 / step.seconds)
    assert step.node_input == pytest.approx(step.samples_per_second / 2 * 110e3)
    assert step.node_cores == pytest.approx(step.samples_per_second / 2 / 355)
    assert (step.checkpoint_bytes, step.checkpoint_seconds) == (12e9, 6.0)
    assert step.days == pytest.approx(1000 * step.seconds / 86400)
    assert step.gpu_hours == pytest.approx(step.days * 24 * 16)
    shards = step_of(KNOWN, **GIVEN | {"sharded": True})
    sent = (2 * 2e9 + 4e9) * 15 / 16
    assert shards.sent.total == pytest.approx(sent)
    assert shards.seconds == pytest.approx(compute + 0.5 * sent / 35e9)
    assert shards.checkpoint_seconds == 3.0  # two nodes write


def test_copies_hide_messages_behind_the_last_backward_pass_alone():
    """Two thirds of the operations of a micro-batch; here that is less than half of the messages take."""
    messages = 2 * 15 / 16 * 4e9 / 35e9
    for micro_batch, num_micro in ((100, 1), (25, 4)):
        step = step_of(KNOWN, **GIVEN | {"flops": 1e11, "micro_batch": micro_batch})
        compute = 1e11 * 1600 / (16 * 1e15 * 0.3)
        assert 2 / 3 * compute < 0.5 * messages
        assert step.seconds == pytest.approx(compute + messages - 2 / 3 * compute / num_micro)


def test_pairs_that_are_computed_in_parts_are_encoded_twice():
    whole = step_of(KNOWN, **GIVEN | {"pair_width": 512})
    parts = step_of(KNOWN, **GIVEN | {"pair_width": 512, "micro_batch": 50})
    assert parts.compute_seconds == pytest.approx(4 / 3 * whole.compute_seconds)
    assert whole.sent.pairs == pair_bytes(1600, 512, 16)


@given(st.sampled_from([1, 2, 4, 8, 16, 64, 512]), st.booleans(), st.floats(1e7, 1e10), st.floats(1e9, 1e13))
def test_more_gpus_more_messages_less_computing(num_gpus, sharded, num_parameters, flops):
    given_now = GIVEN | {"num_gpus": num_gpus, "sharded": sharded, "num_parameters": num_parameters, "flops": flops}
    now = step_of(KNOWN, **given_now | {"batch": 1024})
    more = step_of(KNOWN, **given_now | {"batch": 1024, "num_gpus": 2 * num_gpus})
    assert more.sent.total >= 0.5 * now.sent.total
    assert more.compute_seconds < now.compute_seconds
    assert more.message_seconds >= 0.99 * now.message_seconds or sharded
    assert 0 < now.mfu <= KNOWN.kernel_mfu + 1e-9
    assert now.seconds >= now.compute_seconds


@given(
    st.sampled_from(["intra_bandwidth", "inter_bandwidth", "link_share", "overlap", "kernel_mfu", "write_bandwidth"]),
    st.booleans(),
    st.sampled_from([8, 64]),
)
def test_nothing_gets_slower_by_what_is_faster(name, sharded, num_gpus):
    cases = GIVEN | {"sharded": sharded, "num_gpus": num_gpus}
    better = replace(KNOWN, **{name: asdict(KNOWN)[name] * 1.3})
    now, then = step_of(KNOWN, **cases), step_of(better, **cases)
    assert then.seconds <= now.seconds
    assert then.checkpoint_seconds <= now.checkpoint_seconds
    assert then.mfu >= now.mfu


def test_operations_of_the_papers():
    """MAE-L: 41.4 G operations forward, 10.9 of them the decoder; SwinV2-g at 192 pixels; FLIP at half of CLIP."""
    mae = sample_flops(mae_vit_l16())
    assert mae.total / 6e9 == pytest.approx(41.4 / 2, rel=0.03)
    assert mae.parts["decoder"] / 6e9 == pytest.approx(10.9 / 2, rel=0.03)
    giant = sample_flops(simmim_swinv2("g", "in22k", "500k"))
    # Table 2's 190 G are at 224 pixels; tokens are (192 / 224)^2 as many.
    assert giant.parts["encoder"] / 6e9 == pytest.approx(190 * (192 / 224) ** 2, rel=0.04)
    half, whole = (sample_flops(FLIP_RECIPES[f"{kind}_l16_laion400m_12.8b"]()).total for kind in ("flip", "clip"))
    assert half / whole == pytest.approx(0.52, abs=0.01)  # table 1a


def test_the_command(capsys):
    words = ["plan", "--cluster", "--recipes", "tiny_mae", "--gpus", "2", "16", "--batch-size", "64"]
    main(words)
    shown = capsys.readouterr().out
    assert all(f"--{entry.name.replace('_', '-')}]" in shown for entry in fields(Assumptions))
    assert shown.count("fsdp") == 2
    main([*words, "--json", "--kernel-mfu", "0.1", "--parallel", "ddp"])
    record = json.loads(capsys.readouterr().out)
    assert [step["num_gpus"] for step in record["recipes"]["tiny_mae"]] == [2, 16]
    assert record["assumptions"]["kernel_mfu"] == 0.1
    assert all(step["fits"] and step["mfu"] <= 0.1 for step in record["recipes"]["tiny_mae"])
    main([*words, "--gpu-memory", "0.01", "--kernel-mfu", "0.2"])
    shown = capsys.readouterr().out
    assert "does not fit" in shown
    assert "0.01 GB of memory (given)" in shown


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--on", "abacus"], "peak of 'abacus'"),
        (["--gpus", "0"], "at least 1"),
        (["--gpus", "7"], "cannot be dealt out equally to 7"),
        (["--overlap", "1.5"], "--overlap is 1.5"),
        (["--decode-rate", "0"], "--decode-rate is 0.0"),
        (["--micro-batch-size", "-1"], "must not be negative"),
        (["--recipes", "nope"], "no recipe 'nope'"),
    ],
)
def test_refusals(change, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["plan", "--cluster", "--recipes", "tiny_mae", "--gpus", "8", *change])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_tables_of_the_document_are_what_the_command_prints(capsys):
    document = Path(__file__).parents[3] / "docs" / "scale.md"
    if not document.is_file():
        pytest.skip("the documents are not here")
    text = document.read_text(encoding="utf-8")
    command = next(line for line in text.splitlines() if line.startswith("pretrain plan --cluster"))
    main(command.split()[1:])
    printed = capsys.readouterr().out
    assert f"```\n{printed.strip()}\n```" in text
