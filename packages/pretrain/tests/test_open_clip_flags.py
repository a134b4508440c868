"""Names of open_clip's flags: replaced where they mean the same, refused where they do not."""

import pytest
from unveil_pretrain.commands.open_clip_flags import from_open_clip
from unveil_pretrain.errors import ConfigError


def test_names_that_mean_the_same_are_replaced():
    given = "tiny_flip --workers 4 --warmup=20 --precision amp_bf16 --batch-size 64 --force-patch-dropout 0.5 --seed 1"
    assert " ".join(from_open_clip(given.split())) == (
        "tiny_flip --num-workers 4 --warmup-steps=20 --precision bfloat16 --batch-size 64 --mask-ratio 0.5 --seed 1"
    )
    assert from_open_clip(["--precision=fp32"]) == ["--precision=float32"]
    assert from_open_clip(["--precision"]) == ["--precision"]


def test_our_own_words_stay_as_they_are():
    given = ["--train-data", "a/{0..3}.tar::b.tar", "--precision", "float32", "--out=--workers", "workers"]
    assert from_open_clip(given) == given


@pytest.mark.parametrize("flag", ["--lr", "--epochs", "--train-num-samples", "--accum-freq", "--model"])
def test_names_that_mean_something_else_are_refused(flag):
    for given in ([flag, "1"], [f"{flag}=1"]):
        with pytest.raises(ConfigError, match=f"{flag} is open_clip's: .*; "):
            from_open_clip(given)
