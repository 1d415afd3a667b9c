"""URLs of a recipe: inputs come to the local disk first, outputs go to where they belong."""

from __future__ import annotations

import contextlib
import logging
import math
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from ..args import AnyConfig, Config, replace
from ..configs.parser import keys_marked
from ..errors import TrainingFailed, UserError
from ..runtime.files import check_output_folder
from ..runtime.threads import ThreadPool
from .moxing_adapter import local_copy, stage
from .remote_files import is_http, is_url
from .staging_owner import StagingOwner
from .uploads import RunMirror

_LOGGER = logging.getLogger(__name__)

_MODELARTS_CACHE = "/cache"
_CACHE = "data/cache"
_OWNER_TIMEOUT_S = 3600.0


def cache_folder(config: Config) -> Path:
    """Where URLs are staged to on this host."""
    default = _MODELARTS_CACHE if config.run.run_modelarts else _CACHE
    return Path(config.run.cache_dir or default)


def stage_inputs(config: AnyConfig, keys: Optional[Sequence[str]] = None) -> AnyConfig:
    """The same recipe with local paths; copies what is not there yet.

    Args:
        keys: those to look at; None: all that may be URLs.

    Raises:
        UserError: as of `stage`.
    """
    local: Dict[str, Any] = {}
    for key in keys_marked(type(config), "input_url") if keys is None else keys:
        url = config.flat()[key]
        if url is not None and is_url(url):
            path = stage(url, cache=cache_folder(config), endpoint=config.run.obs_endpoint)
            local[key] = str(path)
            _LOGGER.info("%s %s: %s", key, url, path)
    return replace(config, **local) if local else config


def localize_output(
    config: AnyConfig, *, continues: bool, is_whole: Callable[[Path], bool] = lambda _: True
) -> AnyConfig:
    """The same recipe with a local `train_url`.

    Args:
        continues: this is training: `resume: auto` first brings back what is at the URL, and
            without `resume` a run that is there is not written over.
        is_whole: as of `RunMirror`.

    Raises:
        UserError: there is a run already, or as of `stage`.
    """
    url = config.train.train_url
    if url is None or not is_url(url):
        if continues:
            check_output_folder("train_url", Path(url or "outputs"))
        return config
    if is_http(url):
        raise UserError(
            f"train_url {url!r}: nothing is written to http:// and https://; give a path, s3:// or "
            "obs://"
        )
    if url.startswith("file://"):
        return replace(config, train_url=url[len("file://") :])
    folder = local_copy(url, cache_folder(config))
    folder.mkdir(parents=True, exist_ok=True)
    if continues and config.train.resume in (None, "auto"):
        with StagingOwner(folder.parent / ".owner", timeout_s=_OWNER_TIMEOUT_S):
            endpoint = config.run.obs_endpoint
            mirror = RunMirror(folder, url, endpoint=endpoint, is_whole=is_whole)
            if config.train.resume == "auto":
                mirror.bring_back()
            elif mirror.has_run():
                raise UserError(
                    f"train_url {url!r} holds a run already (last.ckpt); continue it with "
                    "--resume auto, or give another --train_url"
                )
    _LOGGER.info("train_url %s: %s", url, folder)
    return replace(config, train_url=str(folder))


@contextlib.contextmanager
def uploads(
    url: Optional[str],
    local: Config,
    *,
    is_main: bool,
    is_whole: Callable[[Path], bool] = lambda _: True,
) -> Iterator[Callable[[], None]]:
    """While entered, the function it gives sends the run's folder to `url`, beside the training.

    Leaving it waits for the last files, whatever ended the run.

    Args:
        url: `train_url` as the user gave it; nothing happens for a path.
        local: the recipe with its local `train_url`.
        is_main: this process writes the files of the run.
        is_whole: as of `RunMirror`.

    Raises:
        TrainingFailed: all went well otherwise, but some files have not arrived; named.
    """
    if url is None or not is_url(url) or url.startswith("file://") or not is_main:
        yield lambda: None
        return
    assert local.train.train_url is not None
    folder, endpoint = Path(local.train.train_url), local.run.obs_endpoint
    mirror = RunMirror(folder, url, endpoint=endpoint, is_whole=is_whole)
    mirror.watch()
    pending: List[Future[None]] = []
    pool = ThreadPool(1, "upload")

    def send() -> None:
        # One behind the one that runs is enough: it sends all that has changed by then.
        if sum(not job.done() for job in pending) < 2:
            pending.append(pool.submit(mirror.send))

    try:
        yield send
    finally:
        pool.close(patience_s=math.inf)  # a second signal ends it
        mirror.send()
        for name, why in mirror.failed.items():
            _LOGGER.error("not uploaded: %s/%s (%s)", url, name, why)
    if mirror.failed:
        names = ", ".join(sorted(mirror.failed))
        raise TrainingFailed(
            f"train_url {url!r}: {len(mirror.failed)} file(s) were not uploaded ({names}); all are "
            f"in {local.train.train_url}: upload them by hand, or run it again with --resume auto"
        )
