"""One device setting for every test, as the entry points make it."""

from __future__ import annotations

import os

# Before any test module imports MindSpore.
os.environ.setdefault("GLOG_v", "3")

from src.args import RunConfig
from src.tools.device import setup_device

setup_device(RunConfig(), seed=1)
