"""The protocol fingerprint changes with everything that defines a number and with nothing else."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.fingerprint import fingerprint, protocol_fields


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Toy:
    steps: int = 10
    scales: tuple[float, ...] = (0.5, 1.0)
    inner: Inner = Inner()


def test_a_published_value():
    # Changing this value orphans every stored result; raise a task's version instead.
    text = b'{"protocol":{"inner":{"rate":0.1},"scales":[0.5,1.0],"steps":10},"task":"toy","version":1}'
    assert fingerprint("toy", 1, Toy()) == hashlib.sha256(text).hexdigest()[:16] == "a96bc6333773c333"


def test_it_depends_on_task_version_and_every_field():
    variants = [
        fingerprint("toy", 1, Toy()),
        fingerprint("other", 1, Toy()),
        fingerprint("toy", 2, Toy()),
        fingerprint("toy", 1, Toy(steps=11)),
        fingerprint("toy", 1, Toy(scales=(0.5, 1.5))),
        fingerprint("toy", 1, Toy(inner=Inner(rate=0.2))),
    ]
    assert len(set(variants)) == len(variants)
    assert fingerprint("toy", 1, dataclasses.replace(Toy())) == variants[0]


def test_fields_are_json():
    assert protocol_fields(Toy()) == {"steps": 10, "scales": [0.5, 1.0], "inner": {"rate": 0.1}}


@dataclass
class Thawed:
    steps: int = 1


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"steps": 1}, "instance of a frozen dataclass, got dict"),
        (Toy, "instance of a frozen dataclass, got type"),
        (Thawed(), "Thawed must be a frozen dataclass"),
        (Toy(scales=(float("nan"),)), "may hold only numbers"),
        (Toy(steps=Path("a")), "may hold only numbers"),
    ],
)
def test_what_cannot_be_fingerprinted_is_refused(protocol, message):
    with pytest.raises(ProtocolError, match=message):
        fingerprint("toy", 1, protocol)
