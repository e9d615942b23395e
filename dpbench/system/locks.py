"""Files locked by whoever works on them: the kernel lets go of a lock when its process ends, in any way."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Lock an open file (flock) without waiting.

    Returns:
        False where another has it locked, None where the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def is_still(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of that name: whoever had it locked may have removed it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
