"""`python -m benchmarks.scaling`: who is compared with whom, bytes as the kernel counts them, and one small run."""

import json
import socket

import pytest
from unveil_pretrain.planning.cluster import fsdp_bytes, ring_bytes

from benchmarks import scaling
from benchmarks._processes import tcp_bytes_sent
from benchmarks._scaling_child import Task, expected_bytes


def task(**changes):
    given = {"recipe": "tiny_mae", "batch": 8, "kind": "ddp", "device": "cpu", "threads": 1, "bfloat16": False}
    return Task(**given | {"quick": True} | changes)


def test_one_process_is_compared_at_equal_and_at_grown_batches():
    assert scaling._cases([1, 4, 2], 8) == [
        ("one", 1, 8), ("strong", 2, 8), ("strong", 4, 8), ("weak", 2, 16), ("weak", 4, 32),
    ]  # fmt: skip
    # Three processes cannot share eight samples equally.
    assert scaling._cases([3], 8) == [("one", 1, 8), ("weak", 3, 24)]


def test_what_is_sent_over_tcp_is_counted_to_the_byte():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            before = tcp_bytes_sent()
            if before is None:
                pytest.skip("this system does not count the bytes of a connection")
            one.sendall(bytes(12_345))
            other.sendall(bytes(67))
            assert tcp_bytes_sent() == before + 12_412


def test_bytes_by_the_formulas():
    assert expected_bytes(task(), 1) == 0
    num_parameters = expected_bytes(task(), 2) / 4  # 2 (n - 1) / n is 1 for two
    assert num_parameters > 818_176  # those of the encoder
    assert expected_bytes(task(), 4) == pytest.approx(ring_bytes(4 * num_parameters, 4))
    assert expected_bytes(task(kind="fsdp"), 4) == sum(fsdp_bytes(num_parameters, 4, num_micro_batches=1, half=False))
    # Pairs send their texts, and statistics of each, besides gradients.
    small, large = (expected_bytes(task(recipe="tiny_flip", batch=batch), 2) for batch in (8, 16))
    assert large > small


@pytest.mark.slow
def test_a_small_run(capsys, tmp_path):
    figures = tmp_path / "figures.json"
    options = ["--quick", "--rounds", "2", "--steps", "1", "--warm-up", "1", "--json", str(figures)]
    assert scaling.main(["tiny_mae", "4", *options]) == 0
    said = capsys.readouterr().out
    assert "trial: 2 rounds" in said
    rows = {row["kind"]: row for row in json.loads(figures.read_text())["rows"]}
    assert [(row["num_processes"], row["batch"]) for row in rows.values()] == [(1, 4), (2, 4), (2, 8)]
    assert rows["one"]["ratio"]["median"] == 1
    assert [rows[kind]["ideal"] for kind in ("strong", "weak")] == [2, 1]
    for kind in ("strong", "weak"):
        # Gradients, a few counters, and the frames of gloo and TCP.
        assert rows[kind]["expected"] < rows[kind]["sent"] < 1.1 * rows[kind]["expected"]
