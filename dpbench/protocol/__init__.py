"""The only words that victims, defences, attacks and the measurement share.

`attacks` and `defenses` import nothing else of dpbench (import-linter holds it), so an attack can only see
what leaves the client (`Release`) and what the attacker is told (`Knowledge`).
"""

from dpbench.protocol.bottleneck import Bottleneck, BottleneckHead, WithDivergence, bottleneck_head
from dpbench.protocol.claim import Claim, classical_noise_multiplier
from dpbench.protocol.errors import InputError
from dpbench.protocol.factorisation import Factorisation
from dpbench.protocol.functional import functional_call
from dpbench.protocol.kept import cache_folder
from dpbench.protocol.knowledge import ORACLES, Candidates, ImageStatistics, Knowledge, Loss, PublicImages
from dpbench.protocol.local_training import LocalTraining
from dpbench.protocol.parameters import Declared, Parameter, declare, parameter, parameters
from dpbench.protocol.precision import full_precision
from dpbench.protocol.reading import Reading
from dpbench.protocol.reconstruction import Reconstruction
from dpbench.protocol.registry import Registry, defenses_registry
from dpbench.protocol.release import Guarantee, Release, Stage, combined
from dpbench.protocol.spelling import meant

__all__ = [
    "ORACLES",
    "Bottleneck",
    "BottleneckHead",
    "Candidates",
    "Claim",
    "Declared",
    "Factorisation",
    "Guarantee",
    "ImageStatistics",
    "InputError",
    "Knowledge",
    "LocalTraining",
    "Loss",
    "Parameter",
    "PublicImages",
    "Reading",
    "Reconstruction",
    "Registry",
    "Release",
    "Stage",
    "WithDivergence",
    "bottleneck_head",
    "cache_folder",
    "classical_noise_multiplier",
    "combined",
    "declare",
    "defenses_registry",
    "full_precision",
    "functional_call",
    "meant",
    "parameter",
    "parameters",
]
