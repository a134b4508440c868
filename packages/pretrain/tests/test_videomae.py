"""VideoMAE: tubes, targets and loss by hand, the reference's recorded loss, and a run that is killed and goes on."""

import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import golden_numbers as numbers
import numpy as np
import pytest
import torch
from clip_helpers import video_bytes
from unveil_backbones import VideoVitConfig, VideoVitEncoder, create, load
from unveil_masking import Grid, TubeMask
from unveil_masking.partition import partition_from_mask
from unveil_pretrain.cli import main
from unveil_pretrain.config import config_to_json
from unveil_pretrain.data import Batch, ClipDataset
from unveil_pretrain.data.clip_sampling import ClipSettings
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.videomae import CubeDecoder, VideoMAE, VideoMAEConfig, cube_targets
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.recipes import MIM_RECIPES, tiny_videomae, videomae_b16
from unveil_pretrain.stored_config import config_from_json

GOLDEN = Path(__file__).parents[2] / "backbones" / "tests" / "golden" / "videomae.json"
CLIPS = ClipSettings(num_frames=4, frame_stride=1)


def small_config(**changes):
    given = {"clips": CLIPS, "mask_ratio": 0.5, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    return VideoMAEConfig(**{**given, **changes})


def small(**changes):
    torch.manual_seed(0)
    shape = VideoVitConfig(image_size=(16, 16), num_frames=4, patch_size=8, width=16, depth=1, num_heads=2)
    return small_config(**changes).build(BuildContext(VideoVitEncoder(shape), (16, 16), lambda _: [], None))


def inputs(num=3, frames=4, side=16, first=0):
    ids = torch.arange(first, first + num)
    return Inputs(torch.randn(num, 3, frames, side, side), ids, torch.zeros_like(ids), None)


def test_the_papers_counts():
    """176 of 196 places in each of 8 slots are hidden: 20 x 8 tokens go through the encoder."""
    objective = VideoMAEConfig(decoder_width=8, decoder_heads=2, decoder_depth=1)
    encoder = VideoVitEncoder(VideoVitConfig(image_size=(224, 224), patch_size=16, width=8, depth=1, num_heads=1))
    built = objective.build(BuildContext(encoder, (224, 224), lambda _: [], None))
    assert built.card().realised_ratio == pytest.approx(176 / 196)
    seen = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    built.decoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    with torch.no_grad():
        output = built(inputs(2, 16, 224), seed=0)
    assert output.num_tokens == 2 * 20 * 8
    # The decoder's only block is its last, which computes the hidden ones and asks all 1568.
    assert seen[0] == (2, 160, 8)


def test_one_place_is_hidden_in_all_slots_or_in_none_and_clips_differ():
    objective = small()
    hidden = []
    whole = objective.decoder.forward
    objective.decoder.forward = lambda latent, partition, *rest, **more: (
        hidden.append(partition.hidden),
        whole(latent, partition, *rest, **more),
    )[1]
    objective(inputs(16), seed=3)
    slots, places = torch.div(hidden[0], 4, rounding_mode="floor"), hidden[0] % 4
    for clip in range(16):
        assert slots[clip].tolist() == [0, 0, 1, 1]
        assert sorted(places[clip, :2].tolist()) == sorted(places[clip, 2:].tolist())
    assert len({tuple(row) for row in hidden[0].tolist()}) > 3
    objective(inputs(4, first=12), seed=3)
    assert torch.equal(hidden[1], hidden[0][12:])


def targets_by_hand(clips, hidden, tubelet, side, normalise):
    """Cube by cube, with Python's loops: every value at its place, channel fastest."""
    found = []
    for clip, wanted in zip(clips.double().numpy(), hidden.tolist(), strict=True):
        _, _, height, width = clip.shape
        rows, cols = height // side, width // side
        cubes = []
        for index in wanted:
            slot, row, col = index // (rows * cols), index // cols % rows, index % cols
            values = np.empty((tubelet, side, side, 3))
            for t in range(tubelet):
                for y in range(side):
                    for x in range(side):
                        values[t, y, x] = clip[:, slot * tubelet + t, row * side + y, col * side + x]
            flat = values.reshape(-1, 3)
            if normalise:
                mean = flat.sum(0) / len(flat)
                deviation = np.sqrt(((flat - mean) ** 2).sum(0) / (len(flat) - 1))
                flat = (flat - mean) / (deviation + 1e-6)
            cubes.append(flat.reshape(-1))
        found.append(cubes)
    return np.array(found)


@pytest.mark.parametrize("normalise", [True, False])
def test_targets_by_hand(normalise):
    clips = torch.randn(2, 3, 4, 8, 12) * torch.tensor([1.0, 3.0, 0.2])[:, None, None, None] + 5
    hidden = torch.tensor([[11, 0, 5], [6, 7, 1]])
    found = cube_targets(clips, hidden, tubelet=2, patch_size=4, normalise=normalise)
    assert found.shape == (2, 3, 96)
    expected = targets_by_hand(clips, hidden, 2, 4, normalise)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5, rtol=1e-5)


def test_a_flat_cube_has_a_target_of_zeros_and_one_value_apart_does_not_explode():
    clips = torch.full((1, 3, 2, 4, 4), 0.3)
    target = cube_targets(clips, torch.tensor([[0]]), tubelet=2, patch_size=4, normalise=True)
    assert torch.equal(target, torch.zeros(1, 1, 96))
    clips[0, 1, 0, 0, 0] = 0.4
    target = cube_targets(clips, torch.tensor([[0]]), tubelet=2, patch_size=4, normalise=True)
    # One of 32 values differs by a: mean a/32, unbiased deviation a/sqrt(32), so it lies 31/sqrt(32) above the mean.
    assert target.reshape(32, 3)[0, 1].item() == pytest.approx(31 / math.sqrt(32), abs=1e-3)
    assert target.reshape(32, 3)[:, [0, 2]].abs().max() == 0


def test_the_loss_by_hand():
    """With a head that predicts its bias: the mean square of target minus bias over the hidden cubes."""
    objective = small()
    with torch.no_grad():
        objective.decoder.predict.weight.zero_()
        objective.decoder.predict.bias.copy_(torch.linspace(-1, 1, 384))
    batch = inputs(3)
    mask = TubeMask(0.5).sample(Grid(2, 2, frames=2), batch.sample_ids, seed=5, epoch=0)
    target = targets_by_hand(batch.images, mask.hidden, 2, 8, True)
    expected = ((target - np.linspace(-1, 1, 384)) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(objective(batch, seed=5).per_sample.detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
def test_hidden_pixels_reach_the_loss_as_target_alone(normalise):
    objective, batch = small(normalise_target=normalise), inputs(1)
    images = batch.images.clone().requires_grad_()
    seen = []
    objective.encoder.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    objective(replace(batch, images=images), seed=0)
    mask = TubeMask(0.5).sample(Grid(2, 2, frames=2), batch.sample_ids, seed=0, epoch=0)
    changed = batch.images.clone()
    for index in mask.hidden[0].tolist():
        slot, row, col = index // 4, index // 2 % 2, index % 2
        changed[0, :, 2 * slot : 2 * slot + 2, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8] += 1
    objective(replace(batch, images=changed), seed=0)
    assert torch.equal(seen[0], seen[1])


@cache
def golden(name):
    return numbers.read_golden(GOLDEN)["cases"][name]


class GivenTubes(TubeMask):
    """Hides the places that the recording hid."""

    def sample(self, grid, ids, *, seed, epoch):
        del ids, seed, epoch
        mask = torch.zeros(len(self.places), grid.rows * grid.cols, dtype=torch.bool).scatter(1, self.places, True)
        mask = mask.repeat(1, grid.frames)
        return partition_from_mask(mask, int((~mask[0]).sum()), grid)


def recorded(case):
    """The objective with the recorded weights; the names are the reference's after a few changes."""
    settings = case["settings"]
    side = settings["img_size"]
    encoder = VideoVitEncoder(
        VideoVitConfig(
            image_size=(side, side),
            patch_size=settings["patch_size"],
            width=settings["encoder_embed_dim"],
            depth=settings["encoder_depth"],
            num_heads=settings["encoder_num_heads"],
        )
    )
    decoder = CubeDecoder(
        settings["encoder_embed_dim"],
        width=settings["decoder_embed_dim"],
        depth=settings["decoder_depth"],
        heads=settings["decoder_num_heads"],
        num_outputs=settings["decoder_num_classes"],
    )
    strategy = GivenTubes(0.9)
    object.__setattr__(strategy, "places", torch.tensor(case["given"]["hidden_places"]))
    objective = VideoMAE(encoder, decoder, strategy, (side, side), ClipSettings(), normalise_target=True)
    state = numbers.weights(case["shapes"])
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            theirs = reference_name(name)
            if name.endswith("qkv.bias"):
                query, value = (state[theirs.replace("qkv.bias", f"{part}_bias")] for part in "qv")
                parameter.copy_(torch.cat([query, torch.zeros_like(query), value]))
            else:
                parameter.copy_(state[theirs].view_as(parameter))
    return objective


def reference_name(name):
    for ours, theirs in (("decoder.project", "encoder_to_decoder"), ("decoder.mask_token", "mask_token")):
        name = name.replace(ours, theirs)
    return re.sub(r"^decoder\.predict", "decoder.head", name)


def loss_and_gradients(case, objective):
    clips = numbers.noise("images", case["given"]["images"]).float()
    batch = Inputs(clips, torch.arange(len(clips)), torch.zeros(len(clips), dtype=torch.int64), None)
    objective.zero_grad()
    loss = objective(batch, seed=0).per_sample.mean()
    loss.backward()
    found = {}
    for name, parameter in objective.named_parameters():
        theirs, gradient = reference_name(name), parameter.grad
        if name.endswith("qkv.bias"):
            query, _, value = gradient.chunk(3)
            found |= {theirs.replace("qkv.bias", "q_bias"): query, theirs.replace("qkv.bias", "v_bias"): value}
        else:
            found[theirs] = gradient.reshape(case["shapes"][theirs])
    return loss.item(), numbers.gradient_difference(found, case["gradients"])


@pytest.mark.parametrize("name", ["loss_tiny_32", pytest.param("loss_base_224", marks=pytest.mark.slow)])
def test_loss_and_gradients_are_those_of_the_references_training_step(name):
    """The reference adds 1e-6 to deviations of pixels in [0, 1], we to those of normalised ones: 1e-5 of the target."""
    case = golden(name)
    loss, backward = loss_and_gradients(case, recorded(case))
    print(
        f"golden: videomae {name} torch.float32 loss {abs(loss - case['losses']['loss']):.1e} backward {backward:.1e}"
    )
    assert loss == pytest.approx(case["losses"]["loss"], rel=2e-5)
    assert backward <= 5e-5


@pytest.mark.parametrize("change", ["mask_token", "positions", "target"])
def test_the_recorded_loss_notices(change):
    case = golden("loss_tiny_32")
    objective = recorded(case)
    if change == "mask_token":
        torch.nn.init.zeros_(objective.decoder.mask_token)
    elif change == "positions":
        objective.encoder.base_position = objective.encoder.base_position.flip(0)
    else:
        objective.normalise_target = False
    loss, backward = loss_and_gradients(case, objective)
    assert abs(loss / case["losses"]["loss"] - 1) > 1e-4 or backward > 1e-3


def test_the_card_tells_clips_apart():
    card = small().card()
    assert card.mask == {
        "strategy": "tube", "ratio": 0.5, "rounding": "floor_hidden", "share": "clip", "num_frames": 4,
        "frame_stride": 1, "tubelet": 2,
    }  # fmt: skip
    assert (card.target_normalisation, card.reduction, card.realised_ratio) == ("cube_channel", "hidden_cubes", 0.5)
    assert small(normalise_target=False).card().target_normalisation == "none"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mask_ratio": 1.0}, "between 0 and 1"),
        ({"decoder_depth": 0}, "at least 1"),
        ({"decoder_width": 10}, "multiple of 4"),
        ({"mask_ratio": 0.1}, "hides 0 of 4 places"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, match):
    with pytest.raises(ConfigError, match=match):
        small(**change)


def test_an_encoder_of_images_is_refused_by_name():
    context = BuildContext(create("vit_tiny"), (64, 64), lambda _: [], None)
    with pytest.raises(
        ConfigError, match="which vit_tiny does not; choose an encoder whose name begins with vit_video"
    ):
        small_config().build(context)


def test_clips_are_normalised_per_channel():
    pixels = torch.arange(2 * 3 * 4 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 4, 2, 2)
    zeros = torch.zeros(2, dtype=torch.int64)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    found = Normaliser(mean=mean, std=std, device=torch.device("cpu"))(Batch(pixels, zeros, zeros, None)).images
    for channel in range(3):
        expected = (pixels[:, channel].float() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(found[:, channel], expected)


def test_the_papers_recipes_and_their_costs():
    config = videomae_b16()
    assert (config.batch_size, config.lr, config.betas, config.image_size) == (2048, 1.2e-3, (0.9, 0.95), (224, 224))
    assert (config.steps, config.warmup_steps) == (1600 * 240_000 // 2048, 40 * 240_000 // 2048)
    assert not config.mirror
    widths = {
        name: (MIM_RECIPES[name]().objective.decoder_width, MIM_RECIPES[name]().objective.decoder_depth)
        for name in ("videomae_b16", "videomae_l16", "videomae_h16")
    }
    assert widths == {"videomae_b16": (384, 4), "videomae_l16": (512, 12), "videomae_h16": (640, 12)}
    flops = sample_flops(config)
    d, w = 768, 384
    encoder = 160 * 1536 * d + 12 * (12 * 160 * d * d + 2 * 160 * 160 * d)
    decoder = 160 * d * w + 4 * (12 * 1568 * w * w + 2 * 1568 * 1568 * w) + 1408 * w * 1536
    assert flops.num_encoded == 160
    assert flops.parts == {"encoder": 6.0 * encoder, "decoder": 6.0 * decoder}


def test_settings_come_back_from_json_with_those_inside():
    config = replace(tiny_videomae(), objective=small_config(clips=ClipSettings(num_frames=6, clip_crop="resized")))
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Folders of videos in class folders: 6 to train, 3 to validate."""
    root = tmp_path_factory.mktemp("videos")
    for part, numbers_ in (("train", range(6)), ("val", range(10, 13))):
        for number in numbers_:
            path = root / part / f"class{number % 2}" / f"v{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(video_bytes(number, num=12))
    return root / "train", root / "val"


def tiny_run(**changes):
    objective = replace(tiny_videomae().objective, clips=CLIPS, decoder_width=16, decoder_depth=1, decoder_heads=2)
    return replace(
        tiny_videomae(), objective=objective, drop_path=0.2, steps=4, batch_size=4, warmup_steps=1, validate_every=2,
        checkpoint_every=2, gap_images=3, **changes,
    )  # fmt: skip


def test_a_run_on_videos_is_continued_exactly(tmp_path, videos, monkeypatch):
    places = {"train_data": str(videos[0]), "val_data": str(videos[1]), "log": lambda _: None, "progress": False}
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"
    last = train(tiny_run(), out=straight, device="cpu", **places)
    whole, read = ClipDataset.train_example, []

    def killed(self, index, *, seed, epoch):
        read.append(index)
        if len(read) > 2 * 4:  # after the checkpoint of step 2
            raise KeyboardInterrupt
        return whole(self, index, seed=seed, epoch=epoch)

    monkeypatch.setattr(ClipDataset, "train_example", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run(), out=interrupted, device="cpu", **places)
    monkeypatch.undo()
    assert not (interrupted / "checkpoints" / "step_00000004").exists()
    again = train(tiny_run(), out=interrupted, device="cpu", num_workers=1, **places)
    one, other = load(last), load(again)
    assert one.encoder.config.num_frames == 4
    for name, value in one.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name]), name
    for name, value in one.heads.items():
        assert torch.equal(value, other.heads[name]), name
    rows = [
        [json.loads(line) for line in (out / "val.jsonl").read_text().splitlines()] for out in (straight, interrupted)
    ]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert one.manifest.passport.mask["num_frames"] == 4


def test_the_command_trains_on_a_folder_of_videos(tmp_path, videos, capsys):
    out = tmp_path / "run"
    main([
        "mim", "tiny_videomae", "--out", str(out), "--train-data", str(videos[0]), "--val-data", str(videos[1]),
        "--device", "cpu", "--steps", "2", "--batch-size", "2", "--num-frames", "4", "--frame-stride", "3",
        "--clip-crop", "resized", "--gap-images", "2", "--warmup-steps", "1",
    ])  # fmt: skip
    assert capsys.readouterr().out.strip() == str(out / "checkpoints" / "step_00000002")
    clips = json.loads((out / "run.json").read_text())["identity"]["config"]["objective"]["clips"]
    assert clips == {"num_frames": 4, "frame_stride": 3, "clip_crop": "resized"}


def test_images_where_videos_are_wanted_are_one_line(tmp_path, shards, capsys):
    with pytest.raises(SystemExit) as caught:
        main([
            "mim", "tiny_videomae", "--out", str(tmp_path / "run"), "--train-data", shards[0], "--val-data", shards[1],
            "--device", "cpu",
        ])  # fmt: skip
    assert caught.value.code == 2
    assert "must hold one video" in capsys.readouterr().err
