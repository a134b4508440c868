"""Record numbers of a reference implementation for the tests, which then need neither the reference nor its weights.

    python tools/record_golden.py swinv2 --clone PATH --out packages/backbones/tests/golden/swinv2.json

``docs/numerical-truth.md`` says what is recorded and which clones and versions were used.
"""

import argparse
import importlib
import json
from pathlib import Path

import torch
from unveil_backbones import ensure_torchvision

FAMILIES = {
    "swinv2": "golden_swin",
    "mae": "golden_mae",
    "open_clip": "golden_open_clip",
    "dinov2": "golden_dinov2",
    "huggingface": "golden_huggingface",
}
"""The module of each family; its ``record`` takes the clone."""


def main() -> None:
    """Run the reference of one family and write its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--clone", type=Path, help="root of a clone of the reference (swinv2, mae, dinov2)")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    arguments = parser.parse_args()
    ensure_torchvision()
    torch.manual_seed(0)
    # The modules import references' requirements, each its own.
    record = importlib.import_module(FAMILIES[arguments.family]).record
    content = record(arguments.clone).content(["python", "tools/record_golden.py", arguments.family, "--clone", "PATH"])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(_compact(content))


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
    main()
