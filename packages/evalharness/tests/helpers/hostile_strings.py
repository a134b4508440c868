"""An output folder, and files to include, in which every string is an attack on whoever shows it."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import polars
from unveil_evalharness.gallery import captioned, to_picture
from unveil_evalharness.output import write_gallery, write_samples
from unveil_evalharness.results import ResultRow, append_rows

__all__ = ["PAYLOADS", "hostile_folder", "hostile_inclusions"]

PAYLOADS = (
    "<script>window.struck='script'</script>",
    "</script><script>window.struck='close'</script>",
    '<img src=x onerror="window.struck=\'img\'">',
    "<svg onload=window.struck='svg'><animate onbegin=window.struck='svg'></svg>",
    "\" onmouseover=\"window.struck='attribute'\" x=\"",
    "' autofocus onfocus='window.struck=1' x='",
    "<a href=\"javascript:window.struck='link'\">x</a>",
    "[x](javascript:window.struck='md') ![y](http://127.0.0.1:9/y.png) <http://127.0.0.1:9/z>",
    "</title></style><iframe srcdoc=\"<script>top.struck='frame'</script>\"></iframe>",
    "--><base href=http://127.0.0.1:9/><meta http-equiv=refresh content=\"0;url=http://127.0.0.1:9/\">",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+cmd", "-2+3+cmd", " =1+1",
    "\x1b]0;title\x07\x1b[2J\x1b]52;c;aGk=\x07\x9b31m",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "＜script＞＂ﬁ` | `rm` **x** # y",
    "$\\frac{$ %s {0.__class__} ${jndi:ldap://127.0.0.1:9/x}",
    "a\x00b\ud7ff\ufffe",
    "../../../../escaped",
    "/tmp/escaped\r\nSet-Cookie: x",
)  # fmt: skip


def _words():
    """Payloads in turn, each with a number so that names differ."""
    for number in itertools.count():
        yield f"{PAYLOADS[number % len(PAYLOADS)]} {number}"


def hostile_folder(folder: Path, *, num_checkpoints: int = 24) -> Path:
    """Rows, a gallery and tables in which every string is hostile; statuses and paths are what they have to be."""
    words = _words()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    (folder / "gallery").mkdir(parents=True)
    (folder / "tables").mkdir()
    from PIL import Image

    shots = [
        to_picture(captioned(Image.fromarray(pixels), "x"), caption, outcome)
        for caption, outcome in zip(PAYLOADS[:12], itertools.cycle(("good", "bad", "example")), strict=False)
    ]
    write_gallery(folder / "gallery" / "one", shots)
    names = list(PAYLOADS[:6])
    confusion = {"label": [a for a in names for _ in names], "prediction": names * 6, "n": list(range(36))}
    write_samples(folder / "tables" / "confusion.parquet", polars.DataFrame(confusion))
    per_class = polars.DataFrame({"class": names, "n": [1] * 6, "recall": [0.5] * 6})
    write_samples(folder / "tables" / "per_class.parquet", per_class)
    texts = [field.name for field in dataclasses.fields(ResultRow) if field.type in (str, "str")]
    fixed = {"status", "gallery", "samples", "files", "checkpoint_sha256", "task", "metric", "suite", "protocol"}
    rows = []
    for task in (f"t{PAYLOADS[0]}", f"t{PAYLOADS[4]}"):
        protocol = next(words)
        for index in range(num_checkpoints):
            attacks = {name: next(words) for name in texts if name not in fixed}
            failed = index % 6 == 5
            rows.append(
                ResultRow(
                    **attacks,
                    checkpoint_sha256=f"{index:064x}" if index else PAYLOADS[2],
                    task=task,
                    task_version=1,
                    suite=PAYLOADS[5],
                    protocol=protocol,
                    status="failed" if failed else "ok",
                    metric=f"{task}.{PAYLOADS[2]}",
                    main=True,
                    value=None if failed else 0.5 + 0.01 * index,
                    baseline=0.1,
                    standard_error=0.01,
                    n=10,
                    seed=0,
                    versions={next(words): next(words)},
                    gallery="gallery/one",
                    tables={
                        "confusion": "tables/confusion.parquet",
                        PAYLOADS[3]: "../../x",
                        "per_class": "tables/per_class.parquet",
                    },
                )
            )
    append_rows(folder / "results.jsonl", rows)
    return folder


def hostile_inclusions(folder: Path) -> list[Path]:
    """What `compare --json` and `gate --json` print, with hostile words."""
    gate = {
        "status": "regressed", "baseline": PAYLOADS[2], "candidate": PAYLOADS[3], "warnings": [PAYLOADS[0]],
        "findings": [
            {"group": text, "name": text, "status": "not_comparable", "words": text, "contrast": None}
            for text in PAYLOADS
        ],
    }  # fmt: skip
    compare = {"a": PAYLOADS[1], "b": PAYLOADS[8], "metrics": []}
    files = [folder / "gate.json", folder / "compare.json"]
    for file, content in zip(files, (gate, compare), strict=True):
        file.write_text(json.dumps(content), encoding="utf-8")
    return files
