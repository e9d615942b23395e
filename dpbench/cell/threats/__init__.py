"""One file per threat model."""

from dpbench.cell.threat_model import ThreatModel, threat_model, threat_models
from dpbench.cell.threats import (  # noqa: F401 (each registers itself)
    fishing,
    honest,
    informed,
    loki,
    malicious_linear,
)

__all__ = ["ThreatModel", "threat_model", "threat_models"]
