"""The command line: what it draws, what it says, and how it ends when something is wrong."""

import re
import subprocess
import sys

import numpy as np
import pytest
import unveil_masking
from unveil_masking import Grid, MaskingError, Strategy, TextStrategy
from unveil_masking.show.captions import LENGTH, TEXT_EXHIBITS, read_captions
from unveil_masking.show.cli import main
from unveil_masking.show.exhibits import EXHIBITS
from unveil_masking.show.names import listing
from unveil_masking.show.tiles import Scene, counts_in_words

Image = pytest.importorskip("PIL.Image", reason="needs the extra unveil-masking[show]")

NAMES = [line[0] for line in listing()]
IMAGE_NAMES = [exhibit.name for exhibit in EXHIBITS]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture with a bright and a busy part, wider than high, in colours that no mask has."""
    rows, cols = np.mgrid[:160, :240]
    pixels = np.stack([rows, cols, np.full_like(rows, 30)], -1).astype(np.uint8)
    pixels[80:, 120:] ^= ((rows + cols)[80:, 120:, None] % 7 * 16).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


GRID = Grid(6, 8)


def scene(ratio=None, grid=GRID) -> Scene:
    return Scene(
        grid=grid,
        sample_ids=np.array([0, 1, 0, 1]),
        epochs=np.array([0, 0, 1, 1]),
        seed=3,
        ratio=ratio,
        scores=np.arange(grid.num, dtype=float),
    )


def shown(strategy, picture, path, *more) -> np.ndarray:
    assert main(["show", "--strategy", strategy, "--image", str(picture), "-o", str(path), *more]) == 0
    return np.asarray(Image.open(path).convert("RGB"))


def public(kind: type) -> set[type]:
    values = (getattr(unveil_masking, name) for name in unveil_masking.__all__)
    return {value for value in values if isinstance(value, type) and issubclass(value, kind) and value is not kind}


def test_the_gallery_has_every_public_strategy():
    assert {type(exhibit.build(scene())) for exhibit in EXHIBITS} == public(Strategy)
    names = {exhibit.name for exhibit in TEXT_EXHIBITS}
    assert names == {kind(LENGTH, (), 0).describe()["strategy"] for kind in public(TextStrategy)}


def test_names_are_those_of_the_records():
    for exhibit in EXHIBITS:
        assert exhibit.build(scene()).describe()["strategy"] == exhibit.name
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_an_exhibit_shows_the_masks_of_its_strategy(exhibit):
    wanted = scene()
    seen = exhibit.draw(wanted)
    assert seen.masks.shape == (len(seen.tiles), wanted.grid.num)
    assert seen.masks.dtype == bool
    assert seen.caption.isascii()


@pytest.mark.parametrize("exhibit", [e for e in EXHIBITS if "epoch" in e.draw(scene()).tiles[0]], ids=lambda e: e.name)
def test_counts_are_those_of_the_strategy(exhibit):
    low, high = exhibit.build(scene()).hidden_range(GRID)
    hidden = exhibit.draw(scene()).masks.sum(1)
    assert ((low <= hidden) & (hidden <= high)).all()


def test_a_clip_has_a_tile_for_each_slot():
    tube, frame = ({e.name: e for e in EXHIBITS}[name].draw(scene()).masks for name in ("tube", "frame"))
    assert (tube == tube[0]).all()
    assert sorted(frame.mean(1)) == [0, 1, 1, 1]


def test_halves_cover_the_picture_and_targets_avoid_the_context():
    split, multi = ({e.name: e for e in EXHIBITS}[name].draw(scene()).masks for name in ("split", "multi_block"))
    np.testing.assert_array_equal(split[0::2], ~split[1::2])
    assert (multi[0::2] | multi[1::2]).all()  # hidden as context, as target, or as both


def test_a_guided_mask_hides_the_contrast():
    seen = {e.name: e for e in EXHIBITS}["guided"].draw(scene())
    np.testing.assert_array_equal(np.flatnonzero(seen.masks[0]), np.arange(24, 48))  # the larger scores
    assert (seen.masks.sum(1) == 24).all()
    assert len({mask.tobytes() for mask in seen.masks}) == 4


@pytest.mark.parametrize("exhibit", [e for e in EXHIBITS if e.takes_ratio], ids=lambda exhibit: exhibit.name)
def test_a_ratio_is_passed_on(exhibit):
    assert exhibit.build(scene(ratio=0.5)).describe()["ratio"] == 0.5


@pytest.mark.parametrize("exhibit", TEXT_EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_a_text_exhibit_keeps_its_budget_of_a_real_caption(exhibit):
    reading = exhibit.draw(0)
    assert ((~reading.masks).sum(1) == LENGTH).all()
    assert [word for word in reading.words[0] if not word.startswith("[")] == read_captions()[0].split()
    kept = [word for word, hidden in zip(reading.words[2], reading.masks[2], strict=True) if not hidden]
    assert kept[:-1] == ["[start]", *read_captions()[1].split(), "[end]"]  # it fits: only padding is left to choose


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_is_drawn(name, picture, tmp_path):
    assert shown(name, picture, tmp_path / "masks.png").std() > 0
    assert (tmp_path / "masks.png").stat().st_size < 200_000


def test_all_of_them_fit_on_one_figure(picture, tmp_path, capsys):
    pixels = shown("all", picture, tmp_path / "all.png", "--grid", "6x8")
    assert capsys.readouterr().out == f"{tmp_path / 'all.png'}\n"
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 600


def test_what_is_hidden_is_what_the_mask_says(picture, tmp_path):
    """JPEG-free and without a palette: a BMP has the very pixels that were painted."""
    from unveil_masking.show.picture import HIDDEN_COLOUR

    pixels = shown("random", picture, tmp_path / "masks.bmp", "--ratio", "0.5", "--grid", "4x6", "--seed", "7")
    side = 182 // 6
    hidden = (pixels == HIDDEN_COLOUR).all(-1).sum()
    assert hidden == 4 * 12 * side**2  # four tiles of 24 tokens, half of them hidden


def test_the_picture_is_cut_to_the_shape_of_the_grid(picture):
    from unveil_masking.show.picture import contrast, read_picture

    grid = Grid(2, 3)
    pixels = read_picture(picture, grid, 80)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(picture)))  # 160 × 240 already has that shape
    assert read_picture(picture, Grid(3, 3), 10).shape == (30, 30, 3)
    scores = contrast(pixels, grid)
    tokens = pixels.astype(float).mean(2)[80:160, 160:240]
    assert scores.argmax() in (4, 5)  # the busy part
    assert scores[5] == pytest.approx(tokens.std())


def test_a_photograph_stands_upright(tmp_path):
    """A camera that was turned says so in the file: 6 is a quarter turn clockwise."""
    from unveil_masking.show.picture import read_picture

    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    seen = read_picture(tmp_path / "turned.png", Grid(2, 2), 20)
    assert (seen[:18] == 255).all()
    assert (seen[22:] == 0).all()


def test_counts_are_numbers_or_ranges():
    assert counts_in_words(np.array([5, 5]), 10) == "hides 5 of 10 tokens (50.0%)"
    assert counts_in_words(np.array([4, 5]), 10) == "hides 4 to 5 of 10 tokens (40.0% to 50.0%)"


def test_no_arguments_print_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "show" in said
    assert "ls" in said


def test_ls_names_everything(capsys):
    assert main(["ls"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


def test_these_are_the_options(capsys):
    """The list is frozen here, so that a new option is a decision."""
    with pytest.raises(SystemExit) as stop:
        main(["show", "--help"])
    assert stop.value.code == 0
    options = set(re.findall(r"^  (--?\w+)", capsys.readouterr().out, re.M))
    assert options == {"-h", "--image", "--strategy", "--ratio", "--grid", "--seed", "-o"}


WRONG = [
    (["--strategy", "blok"], "ChoiceError: --strategy 'blok' is unknown. Allowed: all, random, unit"),
    (["--strategy", "random", "--ratio", "1.5"], r"RatioError: ratio=1.5 is not a number in [0, 1)"),
    (["--strategy", "random", "--ratio", "nan"], "RatioError: ratio=nan"),
    (["--strategy", "random", "--ratio", "0.99", "--grid", "2x2"], "RatioError: ratio=0.99"),
    (["--strategy", "resize", "--ratio", "-1"], "RatioError: ratio=-1.0"),
    (["--strategy", "split", "--ratio", "0.3"], "ChoiceError: --ratio 0.3 does not go with split"),
    (["--strategy", "text_block", "--ratio", "0.3"], "ChoiceError: --ratio does not go with text_block"),
    (["--grid", "14"], "ChoiceError: --grid '14' is not ROWSxCOLS"),
    (["--grid", "0x4"], "GridError: Grid rows=0"),
    (["--grid", "14x513"], "ChoiceError: --grid 14x513 is more than a figure can show"),
    (["--seed", "-1"], "KeyArrayError: seed=-1"),
    (["--strategy", "text_random", "--seed", "-1"], "KeyArrayError: seed=-1"),
    (["--image", "missing.png"], "PictureError: missing.png cannot be read"),
    (["--image", "TEXT"], "is no picture that Pillow can read"),
    (["--image", "CUT"], "cannot be read: image file is truncated"),
    (["-o", "nowhere/masks.png"], "PictureError: nowhere/masks.png cannot be written"),
    (["-o", "masks.doc"], "PictureError: masks.doc: pictures are not written as '.doc'"),
    (["-o", "masks.psd"], "PictureError: masks.psd: pictures are not written as '.psd'"),  # Pillow only reads it
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named_in_one_line(arguments, sentence, picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "TEXT").write_text("no picture")
    (tmp_path / "CUT").write_bytes(picture.read_bytes()[:300])
    given = ["show", *([] if "--image" in arguments else ["--image", str(picture)]), *arguments]
    assert main(given) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("unveil_masking: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "masks.png").exists()


def test_a_picture_is_asked_for(capsys):
    assert main(["show", "--strategy", "random"]) == 2
    assert "ChoiceError: --strategy random is shown on a picture. Give one with --image" in capsys.readouterr().err


def test_errors_are_masking_errors():
    from unveil_masking.show import errors

    assert all(issubclass(getattr(errors, name), MaskingError) for name in errors.__all__)


# A finder in front of all others hides Pillow.
WITHOUT_PILLOW = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "PIL":
            raise ModuleNotFoundError(f"No module named {name!r}", name="PIL")
sys.meta_path.insert(0, Hide())
import runpy
sys.argv = ["unveil_masking", *sys.argv[1:]]
runpy.run_module("unveil_masking", run_name="__main__")
"""


def without_pillow(*arguments):
    command = [sys.executable, "-c", WITHOUT_PILLOW, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_pillow_the_error_says_what_to_install():
    done = without_pillow("show", "--strategy", "text_random")
    assert done.returncode == 2
    assert done.stderr.startswith("unveil_masking: MissingPillowError: ")
    assert "pip install 'unveil-masking[show]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_rest_works_without_pillow():
    done = without_pillow("ls")
    assert (done.returncode, done.stderr) == (0, "")
    assert without_pillow("show", "--strategy", "blok").stderr.startswith("unveil_masking: ChoiceError")
