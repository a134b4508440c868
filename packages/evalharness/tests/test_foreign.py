"""Checkpoints of other programs: read whole and through both gates, or refused by the name of the tensor."""

import pytest
import torch
from foreign_files import WRITERS, state_of
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image
from unveil_evalharness.errors import CheckpointInputError, ForeignCheckpointError, UsageError
from unveil_evalharness.foreign.arguments import parse_details
from unveil_evalharness.foreign.caches import in_clip_cache, in_hub_cache, in_torch_cache
from unveil_evalharness.foreign.convert import ForeignOptions, convert_foreign
from unveil_evalharness.foreign.reference import parse_reference
from unveil_evalharness.subjects import find_subjects, load_fresh
from unveil_evalharness.task import TaskContext
from unveil_evalharness.tasks.zs_retrieval.config import protocol_for
from unveil_evalharness.tasks.zs_retrieval.task import ZeroShotRetrieval

FORMATS = tuple(WRITERS)


@pytest.fixture
def foreign_file(tmp_path):
    def write(format, state=None):
        return WRITERS[format](tmp_path / format, state_of(format) if state is None else state)

    return write


def options(tmp_path, **more):
    return ForeignOptions(folder=tmp_path / "out" / "foreign", **more)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_each_format_passes_both_gates(format, foreign_file, tmp_path, capsys):
    (subject,) = find_subjects([foreign_file(format)], options(tmp_path, format=format))
    assert "tensors used" in capsys.readouterr().err
    encoder = load_fresh(subject).encoder
    model = fresh_encoder(encoder, drop_path=0.1)
    assert check_load_coverage(encoder.state_dict(), model.state_dict()) == 1.0
    height, width = subject.manifest.preprocessing.image_size
    worst = check_forward_parity(
        encoder,
        model,
        reference_features=encoder.features,
        task_features=model.features,
        image=probe_image(height, width),
    )
    assert worst == 0.0
    assert subject.manifest.origin is not None
    assert subject.manifest.label.endswith(f"of {subject.manifest.origin.source}")


def test_the_same_file_is_the_same_checkpoint_wherever_it_is_kept(foreign_file, tmp_path, capsys):
    file = foreign_file("timm")
    (first,) = find_subjects([file], options(tmp_path))
    capsys.readouterr()
    (again,) = find_subjects([file], options(tmp_path))
    assert capsys.readouterr().err == ""
    (elsewhere,) = find_subjects([file], ForeignOptions(folder=tmp_path / "elsewhere"))
    assert first == again
    assert first.sha256 == elsewhere.sha256
    (other,) = find_subjects([file], options(tmp_path, model_args="mean=0.5/0.5/0.5"))
    assert other.sha256 != first.sha256


DAMAGES = {
    "missing": lambda state, name: state.pop(name),
    "renamed": lambda state, name: state.update({f"{name}_old": state.pop(name)}),
    "transposed": lambda state, name: state.update({name: state[name].T.contiguous()}),
    "extra": lambda state, name: state.update({f"{name}.extra": torch.zeros(1)}),
}
MATRICES = {
    "timm": "blocks.1.mlp.fc1.weight",
    "mae": "blocks.1.mlp.fc1.weight",
    "dinov2": "blocks.1.mlp.fc1.weight",
    "simmim": "encoder.layers.1.blocks.0.mlp.fc1.weight",
    "open_clip": "visual.transformer.resblocks.1.mlp.c_fc.weight",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format", [format for format in FORMATS if format != "open_clip"])
def test_a_damaged_file_is_refused_by_name(format, damage, foreign_file, tmp_path):
    state, name = state_of(format), MATRICES[format]
    DAMAGES[damage](state, name)
    with pytest.raises(ForeignCheckpointError, match=name.removeprefix("encoder.").replace(".", r"\.")):
        find_subjects([foreign_file(format, state)], options(tmp_path, format=format))
    assert not list((tmp_path / "out").glob("foreign/*"))


@pytest.mark.parametrize("damage", ["missing", "transposed"])
def test_a_damaged_pair_is_refused_by_name(damage, foreign_file, tmp_path):
    state = state_of("open_clip")
    DAMAGES[damage](state, MATRICES["open_clip"])
    with pytest.raises(ForeignCheckpointError, match=r"resblocks\.1\.mlp\.c_fc|blocks\.1\.mlp\.fc1"):
        find_subjects([foreign_file("open_clip", state)], options(tmp_path))


def test_foreign_and_own_checkpoints_stand_in_one_list(mae_checkpoint, foreign_file, tmp_path):
    subjects = find_subjects([mae_checkpoint, foreign_file("mae"), mae_checkpoint], options(tmp_path))
    assert [subject.manifest.origin is None for subject in subjects] == [True, False]


def test_a_model_of_timm_by_name_takes_its_weights_from_a_file_and_its_preprocessing_from_timm(tmp_path):
    import unveil_backbones

    unveil_backbones.ensure_torchvision()
    import timm
    from unveil_backbones.checkpoint import write_tensors

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=5).eval()
    write_tensors(tmp_path / "weights.safetensors", model.state_dict())
    text = f"timm:vit_tiny_patch16_224={tmp_path / 'weights.safetensors'}"
    path = convert_foreign(text, options(tmp_path, model_args="image_size=32"))
    ours = unveil_backbones.load(path)
    assert ours.manifest.preprocessing.mean == (0.5, 0.5, 0.5)
    image = probe_image(32, 32)
    with torch.no_grad():
        tokens = ours.encoder.encode(ours.encoder.embed(image), (2, 2))
        torch.testing.assert_close(tokens, model.forward_features(image), atol=1e-5, rtol=0)


def test_random_weights_are_asked_for_and_say_so(tmp_path):
    first = convert_foreign("timm:vit_tiny_patch16_224@random", options(tmp_path))
    (subject,) = find_subjects([first])
    assert "@random" in subject.manifest.label
    again = convert_foreign("timm:vit_tiny_patch16_224@random", ForeignOptions(folder=tmp_path / "again"))
    assert find_subjects([again])[0].sha256 == subject.sha256


def test_weights_that_are_not_here_are_not_downloaded(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "TORCH_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(ForeignCheckpointError, match=r"not on this machine; .* --allow-download, .*@random"):
        convert_foreign("timm:vit_tiny_patch16_224", options(tmp_path))
    with pytest.raises(ForeignCheckpointError, match="not on this machine"):
        convert_foreign("open_clip:ViT-B-32/laion2b_s34b_b79k", options(tmp_path))
    with pytest.raises(ForeignCheckpointError, match="names no weights; write open_clip:ViT-B-32/TAG"):
        convert_foreign("open_clip:ViT-B-32", options(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:vit_tinny", "timm has no model 'vit_tinny'"),
        ("open_clip:ViT-Z-1/openai", "open_clip has no 'ViT-Z-1'"),
        ("open_clip:ViT-B-32/laion3b", "'laion3b' is neither a file nor a tag of ViT-B-32"),
        ("timm:", "write timm:MODEL, timm:MODEL=FILE or timm:MODEL@random"),
        ("timm:vit_tiny_patch16_224=no.pth", "no.pth does not exist"),
        ("timm:resnet50@random", "has no tensor 'patch_embed.proj.weight'"),
    ],
)
def test_what_cannot_be_found_is_named(text, message, tmp_path):
    with pytest.raises(ForeignCheckpointError, match=message):
        convert_foreign(text, options(tmp_path))


def test_references_are_read(tmp_path):
    file = tmp_path / "weights.pt"
    file.touch()
    tag = parse_reference("open_clip:ViT-B-32/openai")
    assert (tag.program, tag.model, tag.tag, tag.weights) == ("open_clip", "ViT-B-32", "openai", None)
    assert parse_reference(f"open_clip:ViT-B-32={file}").weights == file
    assert parse_reference(f"open_clip:ViT-B-32{file}").weights == file  # Path() leaves one slash of two
    assert parse_reference("timm:vit_base_patch16_224@random").random
    assert parse_reference("runs/a").program == "file"


def test_details_are_read_and_refused_by_name():
    details = parse_details("num_heads=6,image_size=192x256,mean=0.5/0.5/0.5,arch=vit_b16")
    assert (details.num_heads, details.image_size, details.arch) == (6, (192, 256), "vit_b16")
    for text, message in (("heads=6", "'heads' is unknown"), ("num_heads=x", "num_heads=x"), ("std=1/2", "three")):
        with pytest.raises(UsageError, match=message):
            parse_details(text)
    with pytest.raises(UsageError, match="num_heads 0"):
        parse_details("num_heads=0")


def test_caches_are_looked_through_by_their_layout(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "hub" / "models--timm--some"
    for revision in ("zzz", "abc"):
        (folder / "snapshots" / revision).mkdir(parents=True)
        (folder / "snapshots" / revision / "model.safetensors").touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("zzz\n")
    found = in_hub_cache("timm/some", ("other.bin", "model.safetensors"))
    assert found == folder / "snapshots" / "zzz" / "model.safetensors"
    assert in_hub_cache("timm/none", ("model.safetensors",)) is None
    for place, look in (("torch/hub/checkpoints", in_torch_cache), (".cache/clip", in_clip_cache)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.pt").touch()
        assert look("https://example.org/models/a.pt") == tmp_path / place / "a.pt"
        assert look("https://example.org/models/b.pt") is None
        assert look("") is None


def test_a_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    torch.save({"model": state_of("timm"), "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ForeignCheckpointError, match="more than tensors"):
        find_subjects([tmp_path / "evil.pth"], options(tmp_path))
    assert not (tmp_path / "run").exists()


def test_without_options_only_checkpoint_folders_are_taken(foreign_file):
    with pytest.raises(CheckpointInputError):
        find_subjects([foreign_file("timm")])


def test_a_pair_of_open_clip_is_retrieved_with_its_own_text_tower(foreign_file, caption_shards, tmp_path):
    (subject,) = find_subjects([foreign_file("open_clip")], options(tmp_path))
    context = TaskContext(
        checkpoint=load_fresh(subject),
        data_root=caption_shards,
        protocol=protocol_for("quick"),
        seed=0,
        limit=None,
        batch_size=8,
        device="cpu",
        work_dir=tmp_path,
        log=print,
        progress=False,
    )
    task = ZeroShotRetrieval()
    assert task.not_applicable(subject.manifest) is None
    measured = {metric.name: metric for metric in task.run(context).metrics}
    assert 0.0 <= measured["zs_retrieval.image_recall@1"].value <= 1.0
    assert measured["zs_retrieval.text_recall@1"].n == 8
