"""docs/security.md names tests that exist, and what it says of the command line and the environment is so."""

import re


def test_every_claim_names_a_test_that_exists(root):
    text = (root / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| claim")]
    assert len(rows) >= 12
    browser = root / "packages" / "evalharness" / "tests" / "browser"
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)`", row)
        assert named, row
        for name in named:
            assert (root / "tests" / "security" / name).is_file() or (browser / name).is_file(), name


def test_what_it_names_is_there(root):
    from unveil_backbones.limits import DEFAULT_MAX_PIXELS, PIXELS_VARIABLE
    from unveil_evalharness.commands.verify import VerifyOptions

    text = (root / "docs" / "security.md").read_text(encoding="utf-8")
    assert f"{DEFAULT_MAX_PIXELS:,}" in text
    assert PIXELS_VARIABLE in text
    assert "tasks" in VerifyOptions.__dataclass_fields__
    for file in re.findall(r"`(tools/\w+\.py)`", text):
        assert (root / file).is_file()
