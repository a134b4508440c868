"""Secrets of the environment and of URLs, planted and then looked for in every file and every line of output."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from unveil_backbones.redaction import HIDDEN, has_secret, is_secret_name, redact, redact_command, redact_record

ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "planted0/aws+secret=x",
    "HF_TOKEN": "hf_planted1token",
    "WANDB_API_KEY": "planted2wandb",
    "MY_DATABASE_PASSWORD": "planted3 password",
}
USER, SIGNATURE, TOKEN, OPTION = "planted4user", "planted5signature", "planted6token", "planted7option"
PLANTED = (*ENVIRONMENT.values(), USER, SIGNATURE, TOKEN, OPTION, "planted0%2Faws%2Bsecret%3Dx")


def leaks(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def leaking_files(folder: Path) -> dict[str, list[str]]:
    """Every file below a folder, also binary ones, and names of files, with the secrets in them."""
    found = {}
    for file in folder.rglob("*"):
        content = file.name.encode() + (file.read_bytes() if file.is_file() else b"")
        secrets = [secret for secret in PLANTED if secret.encode() in content]
        if secrets:
            found[str(file)] = secrets
    return found


HOLDING = [
    f"https://{USER}:pw@host/x.tar",
    f"s3://{USER}@bucket/x-{{0..1}}.tar::s3://{USER}:a/b@bucket/y.tar",
    f"cannot open 'https://host/x.tar?X-Amz-Signature={SIGNATURE}&versionId=3'",
    f"https://host/x?sig={SIGNATURE}",
    f"file:/{USER}:pw@host/x.tar",  # what a path makes of it
    f"https://host/x?token={TOKEN};y=1",
    f"Authorization: Bearer {TOKEN}",
    f"password={TOKEN}",
    f"{{'aws_secret_access_key': '{TOKEN} more'}}",
    f'{{"api_key": "{TOKEN}"}}',
    f"--wandb-key={OPTION}",
    f"access_token: {TOKEN}",
    *(f"Traceback: {value!s} failed" for value in ENVIRONMENT.values()),
    "https://host/planted0%2Faws%2Bsecret%3Dx",
]
HARMLESS = [
    "data/train-{00000..00003}.tar",
    "s3://bucket/key=3/x.tar",
    "mask_token=learned",
    "tokens_seen: 400",
    "https://host:8080/a@b",
    "C:/a@b",
    "/data/a@b: no file",
    "num_tokens=3, pad_token: [PAD]",
    "the key 'a' occurs more than once",
    "user@example.org",
    "https://host/x?versionId=3&part=2",
    "passport: mask ratio 0.6",
    "checkpoint_sha256: " + "0" * 64,
    "",
]


@pytest.mark.parametrize("text", HOLDING)
def test_secrets_are_replaced(text):
    assert leaks(text)
    shown = redact(text, ENVIRONMENT)
    assert not leaks(shown)
    assert HIDDEN in shown
    assert redact(shown, ENVIRONMENT) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text):
    assert redact(text, ENVIRONMENT) == text
    assert not has_secret(text)


def test_command_lines_and_records():
    words = ["pretrain", "mim", "--wandb-key", OPTION, f"--api-key={OPTION}", "--steps", "4", "--mask-token", "x"]
    assert redact_command(words) == [
        "pretrain", "mim", "--wandb-key", HIDDEN, f"--api-key={HIDDEN}", "--steps", "4", "--mask-token", "x"
    ]  # fmt: skip
    record = {"a": {"password": OPTION, "n": 3, "none": None}, "command": words, "b": [1, f"token={TOKEN}"]}
    assert not leaks(json.dumps(redact_record(record)))
    assert redact_record(record)["a"]["n"] == 3
    assert json.loads(redact(json.dumps({"secret": TOKEN, "x": 1}))) == {"secret": HIDDEN, "x": 1}
    names = ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "X-Amz-Credential", "db_password", "FSSPEC_S3_KEY", "token"]
    assert all(map(is_secret_name, names))
    assert not any(map(is_secret_name, ["TOKENIZERS_PARALLELISM", "mask_token", "SSH_AUTH_SOCK", "keyboard", "PATH"]))


def test_long_text_is_redacted_in_linear_time():
    import time

    for text in (
        "https://" * 20_000,
        "secret" * 30_000,
        "x-" * 90_000 + "=",
        "https://a:" + "b" * 200_000,
        "'" * 200_000,
    ):
        begin = time.process_time()
        redact(text, ENVIRONMENT)
        assert time.process_time() - begin < 3.0, text[:10]


def test_the_search_finds_what_is_planted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.bin").write_bytes(b"\0\1" + TOKEN.encode() + b"\2")
    (tmp_path / f"{USER}.txt").write_text("")
    assert set(leaking_files(tmp_path)) == {str(tmp_path / "a" / "x.bin"), str(tmp_path / f"{USER}.txt")}


def test_what_a_run_records(tmp_path, monkeypatch):
    from unveil_pretrain.record import RunFolder, about_run

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    url = f"https://{USER}:x@host/x.tar?sig={SIGNATURE}"
    command = ["pretrain", "mim", "--train-data", url, "--api-key", OPTION]
    folder = RunFolder(tmp_path / "run")
    folder.claim({"steps": 4}, about_run(command=command, train_data=url, val_data=url))
    folder.add_skipped(1, [f"{url}: {ENVIRONMENT['HF_TOKEN']}"])
    assert leaking_files(tmp_path) == {}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["train_data"].startswith(f"https://{HIDDEN}@host/")


def test_a_sweep_refuses_urls_that_hold_a_secret(tmp_path, capsys):
    from unveil_pretrain.cli import main

    place = f"https://{USER}:x@host/x.tar"
    (tmp_path / "plan.json").write_text(
        json.dumps({"format_version": 1, "cells": [{"command": "mim", "recipe": "tiny_simmim", "steps": 4}]})
    )
    with pytest.raises(SystemExit):
        main(
            [
                "sweep",
                str(tmp_path / "plan.json"),
                "--out",
                str(tmp_path / "s"),
                "--train-data",
                place,
                "--val-data",
                place,
            ]
        )
    said = capsys.readouterr().err
    assert not leaks(said)
    assert "holds a secret" in said or "plan" in said
    assert not (tmp_path / "s").exists()


def test_what_a_failing_task_leaves(tmp_path, monkeypatch, capsys):
    import unveil_backbones
    from toy_task import ToyTask, loader
    from unveil_backbones.manifest import Manifest, Preprocessing
    from unveil_evalharness.report.write import make_report
    from unveil_evalharness.run import RunOptions, run

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    encoder = unveil_backbones.create("vit_tiny", image_size=32)
    manifest = Manifest(
        encoder=encoder.spec, preprocessing=Preprocessing(image_size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3),
        objective="mae", mask={}, realised_ratio=0.5, seed=0, step=1, samples_seen=1, unique_samples=1, tokens_seen=1,
        device_seconds=1.0, data_hash="0" * 16, num_parameters=encoder.num_parameters, versions={},
        created="2024-01-01T00:00:00+00:00",
    )  # fmt: skip
    path = unveil_backbones.save(tmp_path / "step_00000001", encoder=encoder, manifest=manifest)
    (tmp_path / "data").mkdir()
    task = ToyTask(fails=RuntimeError(f"https://{USER}:x@host/?sig={SIGNATURE} {' '.join(ENVIRONMENT.values())}"))
    options = RunOptions(
        ckpt=(path,),
        data_root=tmp_path / "data",
        output_path=tmp_path / "out",
        tasks=("toy",),
        device="cpu",
        progress=False,
    )
    summary = run(options, load=loader(task))
    assert summary.num_failed == 1
    make_report([tmp_path / "out"], tmp_path / "report", figures=False)
    assert leaking_files(tmp_path) == {}
    said = capsys.readouterr()
    assert not leaks(said.out + said.err)
    log = "".join(file.read_text() for file in (tmp_path / "out" / "logs").iterdir())
    assert "Traceback" in log
    assert HIDDEN in log


@pytest.mark.slow
def test_whole_commands_leak_nothing(tmp_path):
    """Data under an address with user, password and signature: a local folder of that name serves."""
    host = tmp_path / "cwd" / f"{USER}:pw@host"
    host.mkdir(parents=True)
    place = f"file://{USER}:pw@host/x.tar?X-Amz-Signature={SIGNATURE}"
    with tarfile.open(host / f"x.tar?X-Amz-Signature={SIGNATURE}", "w") as archive:
        for number in range(8):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (number * 20, 9, 90)).save(stream, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = stream.tell()
            stream.seek(0)
            archive.addfile(member, stream)
    out = tmp_path / "out"
    out.mkdir()
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    places = ["--train-data", place, "--val-data", place]
    small = ["--steps", "2", "--batch-size", "4", "--validate-every", "2", "--save-every", "2", "--num-val-images", "4"]
    help_text = _run(["pretrain", "mim", "tiny_simmim", "--help"], tmp_path / "cwd", environment)[1]
    small = [
        word for flag, value in zip(small[::2], small[1::2], strict=True) if flag in help_text for word in (flag, value)
    ]
    said = []
    for module, words, code in (
        ("pretrain", ["mim", "tiny_simmim", "--out", str(out / "run"), *places, *small], 0),
        (
            "pretrain",
            ["mim", "tiny_simmim", "--out", str(out / "bad"), "--train-data", f"{place}x", "--val-data", place],
            2,
        ),
        ("pretrain", ["audit", place, "--json", str(out / "audit.json")], None),
        ("pretrain", ["score", "--ckpt", str(out / "run"), "--images", place, "--json", str(out / "score.json")], 0),
        ("evalharness", ["run", "--ckpt", place, "--data-root", place, "--output-path", str(out / "e")], None),
        ("evalharness", ["report", place, "--output", str(out / "r")], 2),
        ("evalharness", ["gate", "--baseline", place, "--candidate", place, "--policy", "p"], 4),
    ):
        found, text = _run([module, *words], tmp_path / "cwd", environment)
        said.append(text)
        assert code is None or found == code, text[-1500:]
        assert not leaks(text), text
    assert leaking_files(out) == {}
    assert any(HIDDEN in text for text in said)


def _run(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", f"unveil_{words[0]}", *words[1:]]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=500
    )
    return done.returncode, done.stdout + done.stderr
