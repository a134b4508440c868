"""Clips: which frames and which part, from which files, the same in every process; and what is wrong is named."""

import builtins
from collections import Counter

import numpy as np
import pytest
import torch
from clip_helpers import frames_of, numbered_images, video_bytes
from hypothesis import given
from hypothesis import strategies as st
from unveil_pretrain.data import ClipDataset, open_samples, train_batches, val_batches
from unveil_pretrain.data.clip_decode import VIDEO_EXTENSIONS, clip_files, read_frames
from unveil_pretrain.data.clip_sampling import ClipSettings, centre_frames, clip_box, random_frames
from unveil_pretrain.errors import ConfigError, DataError, MissingExtraError

SMALL = ClipSettings(num_frames=4, frame_stride=2)


def index_of(frame):
    """Which frame of `frames_of` this is, by its red channel."""
    return round(float(np.asarray(frame)[..., 0].mean()) / 8)


@given(
    st.integers(1, 80), st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**31), st.integers(0, 9), st.integers(0)
)
def test_frames_lie_a_stride_apart_within_the_video_and_hold_the_last_one(num, count, stride, seed, epoch, sample):
    settings = ClipSettings(num_frames=count, frame_stride=stride)
    sample %= 2**63
    frames = random_frames(num, settings, seed=seed, epoch=epoch, sample_id=sample)
    assert frames == random_frames(num, settings, seed=seed, epoch=epoch, sample_id=sample)
    for chosen in (frames, centre_frames(num, settings)):
        assert len(chosen) == count
        assert all(0 <= frame < num for frame in chosen)
        if num >= (count - 1) * stride + 1:
            assert np.diff(chosen).tolist() == [stride] * (count - 1)
        else:
            assert chosen == [min(index * stride, num - 1) for index in range(count)]


def test_clips_by_hand():
    kinetics = ClipSettings()
    # 16 frames, 4 apart, span 61 frames; of 300 the middle ones begin at (300 - 61) // 2 = 119.
    assert centre_frames(300, kinetics) == list(range(119, 180, 4))
    assert centre_frames(5, SMALL) == [0, 2, 4, 4]
    assert centre_frames(1, SMALL) == [0, 0, 0, 0]


def test_every_start_that_leaves_room_is_equally_likely():
    starts = Counter(random_frames(10, SMALL, seed=1, epoch=0, sample_id=sample)[0] for sample in range(4000))
    assert sorted(starts) == [0, 1, 2, 3]  # span 7 of 10
    assert max(abs(count / 4000 - 1 / 4) for count in starts.values()) < 0.03
    epochs = {random_frames(200, SMALL, seed=1, epoch=epoch, sample_id=5)[0] for epoch in range(50)}
    assert len(epochs) > 30


def test_the_multi_scale_crop_has_four_sizes_and_thirteen_places():
    boxes = [
        clip_box((256, 340), (224, 224), SMALL, scale=(0.5, 1.0), seed=0, epoch=0, sample_id=sample)
        for sample in range(4000)
    ]
    sizes = Counter((box.height, box.width) for box in boxes)
    sides = [256, 224, 192, 168]
    assert set(sizes) == {(sides[i], sides[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    assert max(abs(count / 4000 - 1 / 10) for count in sizes.values()) < 0.03
    largest = {(box.top, box.left) for box in boxes if (box.height, box.width) == (256, 256)}
    assert largest == {(0, right * 21) for right in range(5)}
    places = {(box.top, box.left) for box in boxes if (box.height, box.width) == (168, 168)}
    assert len(places) == 13
    assert all(box.top + box.height <= 256 and box.left + box.width <= 340 for box in boxes)
    assert 0.45 < np.mean([box.flip for box in boxes]) < 0.55


def test_the_resized_crop_is_that_of_images():
    settings = ClipSettings(clip_crop="resized")
    boxes = {
        clip_box((256, 340), (224, 224), settings, scale=(0.1, 0.1), seed=0, epoch=0, sample_id=sample)
        for sample in range(200)
    }
    assert len(boxes) > 150
    assert all(abs(box.height * box.width / (256 * 340) - 0.1) < 0.01 for box in boxes)


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (("mp4",), ("mp4",)),
        (("json", "webm", "txt"), ("webm",)),
        (("video.avi", "json"), ("video.avi",)),
        (("010.jpg", "2.jpg", "json", "001.jpg"), ("001.jpg", "2.jpg", "010.jpg")),
        (("frame.0.png", "frame.1.png"), ("frame.0.png", "frame.1.png")),
        (("jpg",), ()),
        (("mp4", "avi"), ()),
        (("mp4", "000.jpg"), ()),
        (("01.jpg", "1.jpg"), ()),
        (("json",), ()),
        ((), ()),
    ],
)
def test_which_files_of_a_sample_are_its_video(extensions, expected):
    assert clip_files(extensions) == expected


@pytest.mark.parametrize("kind", ["mp4", "avi", "mkv"])
def test_the_chosen_frames_of_a_file_come_back(kind):
    data = video_bytes(3, kind=kind)
    counted = []
    frames = read_frames({kind: data}, (kind,), "a", lambda num: counted.append(num) or [0, 5, 5, 23])
    assert counted == [24]
    assert [index_of(frame) for frame in frames] == [0, 5, 5, 23]
    whole = frames_of(3)
    for frame, index in zip(frames, (0, 5, 5, 23), strict=True):
        assert np.abs(frame.astype(int) - whole[index]).mean() < 8  # compressed


def test_numbered_images_are_exact_and_begin_anywhere():
    files = numbered_images(2, num=6, first=7)
    frames = read_frames(files, clip_files(tuple(files)), "a", lambda num: [0, num - 1])
    assert np.array_equal(np.stack(frames), frames_of(2, num=6)[[0, 5]])


def dataset(path, samples, shard_writer, **given):
    url = shard_writer(path / "videos.tar", samples)
    settings = {"image_size": (16, 16), "clips": SMALL, **given}
    return ClipDataset(open_samples(url, extensions=VIDEO_EXTENSIONS), **settings)


@pytest.fixture
def clips(tmp_path, shard_writer):
    samples = {f"{number:03d}": {"mp4": video_bytes(number), "json": b"{}"} for number in range(3)}
    return dataset(tmp_path, {**samples, "003": numbered_images(3)}, shard_writer)


def test_training_clips_are_functions_of_seed_epoch_and_sample(clips):
    first = clips.train_example(1, seed=4, epoch=2)
    assert first.image.shape == (3, 4, 16, 16)
    assert first.image.dtype == torch.uint8
    assert torch.equal(clips.train_example(1, seed=4, epoch=2).image, first.image)
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}):
        assert not torch.equal(clips.train_example(1, **other).image, first.image)
    assert first.sample_id == int(clips.sample_ids[1])
    indices = [round(float(frame.float().mean()) / 8) for frame in first.image[0]]
    assert np.diff(indices).tolist() == [2, 2, 2]


def test_mirroring_is_a_setting_and_turns_all_frames(tmp_path, shard_writer):
    samples = {f"{number:03d}": numbered_images(number) for number in range(12)}
    plain, mirrored = (dataset(tmp_path / str(flip), samples, shard_writer, mirror=flip) for flip in (False, True))
    turned = 0
    for index in range(12):
        one, other = (data.train_example(index, seed=0, epoch=0).image for data in (plain, mirrored))
        assert torch.equal(other, one) or torch.equal(other, one.flip(-1))
        turned += not torch.equal(other, one)
    assert 2 <= turned <= 10


def test_the_validation_clip_is_the_middle_of_video_and_frames(clips):
    example = clips.val_example(3)
    expected = centre_frames(24, SMALL)
    assert [round(float(frame.float().mean()) / 8) for frame in example.image[0]] == expected
    # 32 x 40 pixels: the middle 32 columns, halved; the green channel is a slope of 3 for each column.
    slope = example.image[1, 0].float().mean(0)
    assert slope.tolist() == pytest.approx([3 * (4 + 2 * col + 0.5) for col in range(16)], abs=2.5)
    assert torch.equal(clips.val_example(3).image, example.image)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_clips_do_not_depend_on_workers(clips, workers):
    batches = list(train_batches(clips, batch_size=3, start_step=1, num_steps=2, seed=0, num_workers=workers))
    again = list(train_batches(clips, batch_size=3, start_step=1, num_steps=2, seed=0))
    assert [batch.images.shape for batch in batches] == [(3, 3, 4, 16, 16)] * 2
    assert all(torch.equal(one.images, other.images) for one, other in zip(batches, again, strict=True))
    (val,) = val_batches(clips, batch_size=4)
    assert val.images.shape == (4, 3, 4, 16, 16)


def test_a_folder_of_videos_in_class_folders_has_the_keys_of_its_shards(tmp_path):
    for number in range(3):
        path = tmp_path / "videos" / f"class{number % 2}" / f"v{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video_bytes(number))
    (tmp_path / "videos" / "readme.txt").write_text("not a video")
    samples = open_samples(str(tmp_path / "videos"), extensions=VIDEO_EXTENSIONS)
    assert samples.keys == ("class0/v0", "class0/v2", "class1/v1")
    assert samples.label(2) == "class1"
    folder = ClipDataset(samples, image_size=(16, 16), clips=SMALL)
    assert folder.val_example(0).image.shape == (3, 4, 16, 16)
    smaller = folder.of_samples(samples.subset(2, seed=0))
    assert (len(smaller), smaller.clips, smaller.image_size) == (2, SMALL, (16, 16))
    with pytest.raises(DataError, match="holds no image"):
        open_samples(str(tmp_path / "videos"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no video \(mp4, webm"):
        open_samples(str(tmp_path / "empty"), extensions=VIDEO_EXTENSIONS)


def test_short_videos_hold_their_last_frame(tmp_path, shard_writer):
    short = dataset(tmp_path, {"a": {"mp4": video_bytes(0, num=3)}}, shard_writer)
    clip = short.train_example(0, seed=0, epoch=0).image
    assert [round(float(frame.float().mean()) / 8) for frame in clip[0]] == [0, 2, 2, 2]
    assert torch.equal(clip[:, 1], clip[:, 3])


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"mp4": b"no video at all"}, r"videos\.tar: bad: the video cannot be decoded \(InvalidDataError"),
        ({"mp4": b""}, "cannot be decoded"),
        ({"mp4": video_bytes(0)[:700]}, "cannot be decoded"),
        ({"000.png": b"no image", "001.png": b""}, r"bad\.00[01]\.png: the image cannot be decoded"),
        ({**numbered_images(0, num=3), "009.png": numbered_images(0, num=1, height=16)["000.png"]}, "frames of sizes"),
        ({"txt": b"a caption"}, "must hold one video"),
        ({"mp4": video_bytes(0, num=2), "avi": b"x"}, "must hold one video"),
    ],
)
def test_unreadable_videos_are_named(tmp_path, shard_writer, files, match):
    samples = {"bad": files, "good": {"mp4": video_bytes(1)}}
    with pytest.raises(DataError, match=match):
        dataset(tmp_path, samples, shard_writer).train_example(0, seed=0, epoch=0)


def test_a_cut_off_video_gives_the_frames_it_has_or_an_error_but_no_garbage(tmp_path, shard_writer):
    whole = video_bytes(0, kind="mkv")
    data = dataset(tmp_path, {"a": {"mkv": whole[: len(whole) * 2 // 3]}}, shard_writer)
    clip = data.val_example(0).image
    indices = [round(float(frame.float().mean()) / 8) for frame in clip[0]]
    assert indices == sorted(indices)
    assert max(indices) < 20


def test_samples_without_any_video_are_refused_at_once(tmp_path, shard_writer):
    with pytest.raises(DataError, match="no other sample does"):
        dataset(tmp_path, {"a": {"txt": b"x"}}, shard_writer)


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'unveil-pretrain\[video\]'"):
        read_frames({"mp4": b""}, ("mp4",), "a", lambda num: [0])


@pytest.mark.parametrize(
    ("given", "match"),
    [({"num_frames": 0}, "at least 1"), ({"frame_stride": 0}, "at least 1"), ({"clip_crop": "none"}, "multi_scale or")],
)
def test_settings_that_make_no_clip_are_refused(given, match):
    with pytest.raises(ConfigError, match=match):
        ClipSettings(**given)
