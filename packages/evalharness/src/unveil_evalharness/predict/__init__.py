"""What will this checkpoint score downstream, and is the fine-tuning needed to know; without torch."""

from unveil_evalharness.predict.forecast import Forecast, forecast
from unveil_evalharness.predict.known import KnownRuns, Query, known_from_evidence, known_from_table

__all__ = ["Forecast", "KnownRuns", "Query", "forecast", "known_from_evidence", "known_from_table"]
