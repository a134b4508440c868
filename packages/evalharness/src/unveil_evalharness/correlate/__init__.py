"""How far the validation loss of a checkpoint tells its downstream scores; reads rows and manifests, needs no torch."""

from unveil_evalharness.correlate.correlation import Correlation, Stratum, correlate, correlate_evidence
from unveil_evalharness.correlate.evidence import Evidence, read_evidence
from unveil_evalharness.correlate.statistics import Estimate, Refusal, Statistics

__all__ = [
    "Correlation",
    "Estimate",
    "Evidence",
    "Refusal",
    "Statistics",
    "Stratum",
    "correlate",
    "correlate_evidence",
    "read_evidence",
]
