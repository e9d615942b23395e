"""One file per threat model."""

from dpbench.cell.threat_model import ThreatModel, threat_model, threat_models
from dpbench.cell.threats import honest, informed, malicious_linear  # noqa: F401 (each registers itself)

__all__ = ["ThreatModel", "threat_model", "threat_models"]
