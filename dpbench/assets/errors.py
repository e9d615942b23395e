"""What can go wrong between a record and a file on the disk."""

from __future__ import annotations

from dpbench.protocol import InputError


class AssetUnavailable(InputError):  # noqa: N818 - named for the state, as users read it
    """No source of an asset answers here, or its file is not what its record says; one sentence says why."""


class SourceFailed(Exception):  # noqa: N818 - one source's answer, collected into an AssetUnavailable
    """One source could not deliver; the message is a short clause without a full stop."""
