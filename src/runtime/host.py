"""The machine and the versions that something was computed by, in words."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
from typing import Dict

from .. import __version__
from .processor import describe_processor

_PACKAGES = ("mindspore", "numpy", "scipy", "pillow", "simplejpeg", "numba")


@functools.cache  # it does not change while a run writes its page again and again
def describe_host() -> Dict[str, str]:
    """`{"system": "Linux-...", "processor": ..., "Python": "3.11.2", "mindspore": "2.10.0", ...}`.

    The name of the host is left out: a page goes to others.
    """
    found = {"system": platform.platform(), "processor": describe_processor()}
    found["Python"] = platform.python_version()
    found["mindspore-classifiers"] = __version__
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
