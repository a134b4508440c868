"""Inputs on which a parser once stopped in a way nobody had meant, each with what it says now."""

import io
import json
import shutil
from pathlib import Path
from random import Random

import polars
import pytest
from fuzzing import tree_of
from good_files import coco_folder, karpathy_file
from mutations import mutated_bytes
from unveil_backbones import tokenizer_from_json
from unveil_backbones.errors import CheckpointNotFoundError, TokenizerError
from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import resolve_checkpoint
from unveil_backbones.parquet_pages import check_parquet
from unveil_backbones.places import is_file, is_folder, is_there
from unveil_evalharness.correlate.reader import read_table
from unveil_evalharness.errors import DataError, ForeignCheckpointError, GateFileError, ResultsError
from unveil_evalharness.foreign.reference import parse_reference
from unveil_evalharness.gate.baseline import read_baseline
from unveil_evalharness.published.summary import read_summary
from unveil_evalharness.results import append_rows, read_rows, to_frame
from unveil_evalharness.tasks.coco_det.annotations import read_split
from unveil_evalharness.tasks.zs_retrieval.data import captioned_images
from unveil_pretrain.config import config_to_json
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.data.shard_index import index_from_json
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.errors import DataError as TrainingDataError
from unveil_pretrain.recipes import MIM_RECIPES
from unveil_pretrain.stored_config import config_from_json
from unveil_pretrain.sweeping.folder import SweepFolder
from unveil_pretrain.sweeping.table import read_rows as rows_of_sweep
from unveil_pretrain.sweeping.table import write_summary

NO_NAMES = ("a" * 3000, "é" * 300, "a\0b", "\ud83d", "a" * 300 + "/b")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'"\uDE00x"', "\ufffdx"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (rb'{"a\ud83d": ["\udfff", 1, null]}', {"a\ufffd": ["\ufffd", 1, None]}),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        ('"é"'.encode("utf-16"), "é"),
    ],
)
def test_no_text_of_a_json_file_has_half_a_character(text, value):
    assert parse_json(text) == value


def test_a_reader_may_ask_for_the_halves():
    assert parse_json(r'["\ud83d"]', keep_halves=True) == ["\ud83d"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_nothing_is_where_no_file_can_be(name, tmp_path):
    assert not any(ask(tmp_path / name) for ask in (is_file, is_folder, is_there))
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        resolve_checkpoint(tmp_path / name)
    with pytest.raises(ForeignCheckpointError, match="does not exist"):
        parse_reference(f"timm:vit_tiny={name}")
    with pytest.raises(TrainingDataError, match=r".+"):
        open_samples(f"{tmp_path}/{name}")


def test_a_place_that_is_there_is_told_from_one_that_is_not(tmp_path):
    (tmp_path / "a").write_text("x")
    assert (is_file(tmp_path / "a"), is_folder(tmp_path / "a"), is_there(tmp_path / "a")) == (True, False, True)
    assert (is_file(tmp_path), is_folder(tmp_path), is_there(tmp_path / "b")) == (False, True, False)


def test_a_link_to_itself_is_no_name_that_cannot_be(tmp_path, monkeypatch):
    """Other refusals of the system are passed on: a folder without permission is no absent one."""

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(PermissionError):
        is_file(tmp_path / "a")


def test_a_tokenizer_without_a_piece_for_unknown_words(place):
    tree = tree_of(place.good / "pair" / "tokenizer.json")
    tree["model"]["unk_token"] = "[NONE]"
    with pytest.raises(TokenizerError, match="no WordPiece model with a piece for words"):
        tokenizer_from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"padding": {"pad_to_multiple_of": 2**31}}, "multiple of 2147483648"),
        ({"padding": {"strategy": {"Fixed": 2**31}}, "truncation": {"max_length": 2**31}}, "rows of 2147483648"),
    ],
)
def test_a_tokenizer_whose_rows_are_longer_than_memory(place, changed, said):
    """The library ended the process."""
    tree = tree_of(place.good / "pair" / "tokenizer.json")
    for name, values in changed.items():
        tree[name] |= values
    with pytest.raises(TokenizerError, match=said):
        tokenizer_from_json(json.dumps(tree))


@pytest.mark.parametrize("name", ["\ud83d", "é" * 300])
def test_annotations_name_what_no_file_is_called(name, tmp_path):
    coco_folder(tmp_path)
    file = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    tree = tree_of(file)
    tree["images"][0]["file_name"] = name
    file.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"names 1 of 3 images that are not in"):
        read_split(tmp_path, "val")


@pytest.mark.parametrize("name", ["\ud83d", "é" * 300])
def test_karpathy_names_a_folder_that_cannot_be(name, tmp_path):
    file = karpathy_file(tmp_path)
    tree = tree_of(file)
    tree["images"][0]["filepath"] = name
    file.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"dataset_coco\.json names COCO_val2014_000000000000\.jpg, which is not in"):
        list(captioned_images(tmp_path, limit=None))


def test_two_captions_of_one_id_and_of_two_kinds(tmp_path):
    coco_folder(tmp_path)
    file = tmp_path / "coco" / "annotations" / "captions_val2017.json"
    tree = tree_of(file)
    tree["annotations"][1] = {"id": 0, "image_id": 7, "caption": False}
    file.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="image 7: 'captions' must be a list with at least one text"):
        list(captioned_images(tmp_path, limit=None))


def test_a_label_of_half_a_character(place):
    rows = read_rows(place.good / "eval" / "results" / "results.jsonl")
    file = place.scratch / "results.jsonl"
    append_rows(file, rows[:1])
    file.write_text(file.read_text().replace(rows[0].label, r"\ud83d"))
    assert to_frame(read_rows(file))["label"].to_list() == ["\ufffd"]


def test_a_baseline_without_a_promotion(root, tmp_path):
    text = (root / "tests" / "gate" / "baseline.toml").read_text()
    file = tmp_path / "baseline.toml"
    file.write_text(
        "promotions = []\n" + text.replace("[[promotions]]", "[[others]]").replace("[promotions.", "[more.")
    )
    with pytest.raises(GateFileError, match="it has no promotion"):
        read_baseline(file)


@pytest.mark.parametrize(("name", "value", "num"), [("betas", [], 2), ("pixel_std", [0.2, 0.2], 3)])
def test_settings_with_another_number_of_values(name, value, num):
    values = json.loads(json.dumps(config_to_json(MIM_RECIPES["tiny_mae"]())))
    with pytest.raises(ConfigError, match=f"{name} has {len(value)} values; give {num}"):
        config_from_json({**values, name: value})


def test_a_reason_of_half_a_character(place):
    folder = place.scratch / "sweep"
    shutil.copytree(place.good / "sweep", folder)
    (folder / "outcomes" / "failed.json").write_text(r'{"code": 1, "reason": "\ud83d", "seconds": 2.0}')
    sweep = SweepFolder(folder)
    assert "\ufffd" in write_summary(sweep, rows_of_sweep(sweep, sweep.states())).read_text(encoding="utf-8")


@pytest.mark.parametrize("count", ["-Infinity", "NaN", "-1", "1.5", "true", '"3"', "1e400"])
def test_a_count_that_is_none(count):
    text = (
        '{"format_version": 1, "settings": {}, "num_samples": 1, "content_hash": "0", "classes": [], "shards": '
        f'[{{"name": "a.tar", "sha256": "0", "num_bytes": 3, "num_samples": {count}, "left_out": []}}]}}'
    )
    with pytest.raises(TrainingDataError, match=r"index\.json cannot be read"):
        index_from_json(text, "index.json")


def test_hashes_in_a_summary_are_no_numbers(tmp_path):
    """Polars would guess a number, and could not give the text back."""
    file = tmp_path / "summary.csv"
    columns = "cell,encoder,fraction,steps,seed,val_loss,passport,checkpoint_sha256,epochs,unique_samples"
    file.write_text(f"{columns}\na,vit,1.0,10,0,0.5,12e4,{'0' * 63}1,2.0,16\n")
    table = read_summary(file)
    assert (table["passport"].item(), table["checkpoint_sha256"].item()) == ("12e4", f"{'0' * 63}1")
    assert (table["steps"].item(), table["loss"].item(), table["samples_seen"].item()) == (10, 0.5, 32)


def _parquet(**options) -> bytes:
    stream = io.BytesIO()
    table = {"n": [1, 2, None, 4], "word": ["a", "b", "c", "c"], "parts": [[1.5], [], [2.5, 3.5], None]}
    polars.DataFrame(table).write_parquet(stream, **options)
    return stream.getvalue()


def test_a_flipped_bit_in_the_header_of_a_page_does_not_end_the_process(tmp_path):
    """Four values became minus five, for which polars asked for two exbibytes; the system's refusal ends a process."""
    stream, file = io.BytesIO(), tmp_path / "table.parquet"
    polars.DataFrame({"word": ["a", "b", "c", "d"]}).write_parquet(stream)
    whole = stream.getvalue()
    # A data page of 4 values in the encoding RLE_DICTIONARY.
    before, after = b"\x15\x08\x15\x10\x15\x06\x15\x06", b"\x15\x09\x15\x10\x15\x06\x15\x06"
    assert whole.count(before) == 1
    file.write_bytes(whole.replace(before, after))
    with pytest.raises(ResultsError, match=r"cannot read .*a count in it is -5"):
        read_table(file)


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"])
def test_whole_parquet_files_pass(compression, tmp_path):
    file = tmp_path / "table.parquet"
    for options in ({}, {"statistics": "full"}, {"row_group_size": 2}, {"data_page_size": 1}):
        file.write_bytes(_parquet(compression=compression, **options))
        check_parquet(file)


def test_of_damaged_parquet_files_the_check_says_only_that_they_are(tmp_path):
    file, whole, refused = tmp_path / "table.parquet", _parquet(), 0
    for seed in range(600):
        file.write_bytes(mutated_bytes(Random(seed), whole))
        try:
            check_parquet(file)
        except ValueError as error:
            refused += bool(str(error))
    assert refused > 300
