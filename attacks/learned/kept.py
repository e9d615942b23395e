"""Trained inversions in the cache folder."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from attacks import public_gradients
from attacks.learned.decoder import Decoder
from attacks.learned.inversion import Inversion
from dpbench.protocol import Knowledge, Release, cache_folder, defenses_registry

_held: dict[str, Inversion] = {}
"""The inversion that was used last in this process."""
BUFFERS = ("labels", "centres", "weights", "means", "components")


def name_of(release: Release, knowledge: Knowledge, images: Tensor, labels: Tensor, steps: int) -> str:
    """A hash of all that decides an inversion: victim, images, defence, training and their code.

    Empty where the code of the defence is in no file, as what a console or a notebook made.
    """
    stages = [(stage.name, sorted(stage.parameters.items())) for stage in release.defense]
    found = hashlib.sha256(public_gradients.fingerprint(knowledge, images, labels, None).encode())
    found.update(f"{release.names} {stages} {len(release.each)} {steps} {torch.__version__}".encode())
    home, protocol = Path(public_gradients.__file__).parent, Path(inspect.getfile(Release)).parent
    files = {*Path(__file__).parent.glob("*.py"), *home.glob("*.py"), *protocol.glob("*.py")}
    files |= set((home.parent / "defenses").rglob("*.py"))  # what a defence's file imports, too
    for stage in release.defense:
        if stage.name in defenses_registry:
            own = _code_of(defenses_registry[stage.name])
            if not own:
                return ""
            files |= own
    for file in sorted(files):
        found.update(file.read_bytes())
    return found.hexdigest()


def _code_of(kind: type) -> set[Path]:
    """The files of a defence and of the classes that it inherits from; none for what a console made."""
    found = set()
    for each in kind.__mro__[:-1]:
        try:
            found.add(Path(inspect.getfile(each)))
        except (TypeError, OSError):
            if each.__module__ == "__main__":
                return set()
    return found if all(file.is_file() for file in found) else set()


def kept(name: str, release: Release, train: Callable[[], Inversion], device: torch.device) -> Inversion:
    """The inversion of that name from the cache folder, or a new one, which is then put there.

    The cache is a convenience: what cannot be read is trained again, and what cannot be written is not kept.

    Args:
        name: `name_of` it; an inversion without a name is not kept.
        release: one that it inverts.
        train: makes it.
        device: where it goes.
    """
    if not name:
        return train()
    if name not in _held:
        found = _read_or_trained(name, release, train, device)
        _held.clear()
        _held[name] = found
    return _held[name]


def _read_or_trained(
    name: str, release: Release, train: Callable[[], Inversion], device: torch.device
) -> Inversion:
    try:
        file = cache_folder() / "learned-inversion" / f"{name[:32]}.safetensors"
    except RuntimeError:  # there is no home folder
        return train()
    try:
        return _from(load_file(file), release).to(device)
    except (OSError, KeyError, RuntimeError, SafetensorError):
        pass
    made = train()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(made, file)
    except (OSError, SafetensorError):
        pass
    return made


def _from(tensors: dict[str, Tensor], release: Release) -> Inversion:
    decoder = Decoder(tensors["means"].shape[1])
    prefix = "decoder."
    decoder.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    sizes = [g.numel() for g in release.gradients]
    return Inversion(sizes, *(tensors[n] for n in BUFFERS), decoder.eval().requires_grad_(False))


def _write(inversion: Inversion, file: Path) -> None:
    """Under a temporary name first, so that another process never reads half of it."""
    state = inversion.state_dict()
    tensors = {n: t.cpu().contiguous() for n, t in state.items() if not n.startswith("sketch.")}
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        save_file(tensors, temporary)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
