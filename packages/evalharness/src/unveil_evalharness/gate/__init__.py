"""Whether a candidate is worse than a baseline, by a policy; needs no torch."""

from unveil_evalharness.gate.baseline import Baseline, read_baseline
from unveil_evalharness.gate.decide import GateReport, gate
from unveil_evalharness.gate.policy import Policy, read_policy

__all__ = ["Baseline", "GateReport", "Policy", "gate", "read_baseline", "read_policy"]
