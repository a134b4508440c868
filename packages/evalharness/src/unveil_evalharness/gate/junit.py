"""A gate's report as JUnit XML, as Jenkins, GitLab and the actions of GitHub read it.

A task is a ``testsuite``, a metric a ``testcase``: regressed is a ``failure``, not comparable an ``error``, undecided
``skipped``. Elements, their order and their attributes are those of the common schema (windyroad/JUnit-Schema).
"""

import re
import socket
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from unveil_evalharness.gate.decide import Finding, GateReport

__all__ = ["as_junit"]

# What XML 1.0 cannot hold, escaped or not.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def as_junit(report: GateReport, *, now: datetime | None = None) -> str:
    """The whole report as one XML document."""
    time = (datetime.now(UTC) if now is None else now).strftime("%Y-%m-%dT%H:%M:%S")
    root = ET.Element("testsuites")
    for number, (group, found) in enumerate(groupby(report.findings, key=lambda one: one.group)):
        root.append(_suite(number, group, list(found), report, time))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(number: int, group: str, findings: Sequence[Finding], report: GateReport, time: str) -> ET.Element:
    counts = {status: sum(one.status == status for one in findings) for status in ("regressed", "not_comparable")}
    suite = ET.Element(
        "testsuite",
        {
            "id": str(number),
            "package": "evalharness.gate",
            "name": _clean(group),
            "timestamp": time,
            "hostname": socket.gethostname() or "localhost",
            "tests": str(len(findings)),
            "failures": str(counts["regressed"]),
            "errors": str(counts["not_comparable"]),
            "skipped": str(sum(one.status == "undecided" for one in findings)),
            "time": "0",
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("baseline", report.baseline),
        ("candidate", report.candidate),
        ("alpha", f"{report.policy.alpha:g}"),
        ("power", f"{report.policy.power:g}"),
    ):
        ET.SubElement(properties, "property", {"name": name, "value": _clean(value)})
    for one in findings:
        suite.append(_case(one))
    ET.SubElement(suite, "system-out").text = _clean("\n".join(f"{one.name}: {one.words}" for one in findings))
    ET.SubElement(suite, "system-err").text = _clean("\n".join(report.warnings))
    return suite


def _case(one: Finding) -> ET.Element:
    case = ET.Element("testcase", {"name": _clean(one.name), "classname": _clean(one.group), "time": "0"})
    words = _clean(one.words)
    match one.status:
        case "regressed":
            ET.SubElement(case, "failure", {"message": words, "type": "regressed"}).text = words
        case "not_comparable":
            ET.SubElement(case, "error", {"message": words, "type": "not comparable"}).text = words
        case "undecided":
            ET.SubElement(case, "skipped", {"message": f"undecided: {words}"})
        case "ok":
            pass
    return case


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
