"""Record numbers of a reference implementation for the tests, which then need neither the reference nor its weights.

    python tools/record_golden.py swinv2 --clone PATH --out packages/backbones/tests/golden/swinv2.json
    python tools/record_golden.py swinv2 --clone PATH --check packages/backbones/tests/golden/swinv2.json

``docs/numerical-truth.md`` says what is recorded and which clones and versions were used.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from unveil_backbones import ensure_torchvision

FAMILIES = {
    "swinv2": "golden_swin",
    "simmim_vit": "golden_simmim_vit",
    "mae": "golden_mae",
    "videomae": "golden_videomae",
    "open_clip": "golden_open_clip",
    "dinov2": "golden_dinov2",
    "huggingface": "golden_huggingface",
}
"""The module of each family; its ``record`` takes the clone."""


def main() -> int:
    """Run the reference of one family, and write its numbers or compare them with a file's; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--clone", type=Path, help="root of a clone of the reference, where there is one")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="the JSON file to write")
    target.add_argument("--check", type=Path, help="a JSON file to compare with")
    arguments = parser.parse_args()
    ensure_torchvision()
    torch.manual_seed(0)
    # The modules import references' requirements, each its own.
    record = importlib.import_module(FAMILIES[arguments.family]).record
    clone = ["--clone", "PATH"] if arguments.clone else []
    text = _compact(record(arguments.clone).content(["python", "tools/record_golden.py", arguments.family, *clone]))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
        return 0
    differing = list(_differing(json.loads(text), json.loads(arguments.check.read_text())))
    sys.stdout.write(("\n".join(differing) or f"{arguments.check} is what the reference gives") + "\n")
    return int(bool(differing))


def _differing(found: Any, recorded: Any, place: str = "") -> Iterator[str]:
    """Places where two contents differ by more than the rounding of sums in another order."""
    if isinstance(found, dict) and isinstance(recorded, dict):
        # Where, when and with what a file was made may differ, and float32 depends on the machine.
        names = [name for name in sorted(found.keys() | recorded.keys()) if name not in ("source", "float32")]
        for name in names:
            yield from _differing(found.get(name), recorded.get(name), f"{place}/{name}")
    elif isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        for index, pair in enumerate(zip(found, recorded, strict=True)):
            yield from _differing(*pair, f"{place}/{index}")
    elif isinstance(found, float) and isinstance(recorded, float):
        if abs(found - recorded) > 1e-8 * max(1.0, abs(recorded)):
            yield f"{place}: {found} instead of {recorded}"
    elif found != recorded:
        yield f"{place}: {str(found)[:60]} instead of {str(recorded)[:60]}"


def _compact(content: object) -> str:
    """JSON with 12 digits, a line for each member of the third level."""
    rounded = json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.12g}"))
    lines = []
    for part, members in rounded.items():
        entries = []
        for name, member in members.items():
            if isinstance(member, dict) and part != "source":
                inner = ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in member.items())
                entries.append(f"  {json.dumps(name)}: {{\n{inner}\n  }}")
            else:
                entries.append(f"  {json.dumps(name)}: {json.dumps(member)}")
        lines.append(f" {json.dumps(part)}: {{\n" + ",\n".join(entries) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
