"""Files of the Hugging Face hub, fetched once and kept in its own cache.

`huggingface_hub` does it: it goes on after a break, and obeys `HF_ENDPOINT` (mirrors),
`HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN` and the variables of proxies.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence, Tuple

from ..errors import UserError, on_one_line
from ..runtime.files import file_sha256
from ..runtime.regular_files import WEIGHTS_BYTES

PREFIX = "hf-hub:"
# Blobs of the cache are named by their content where the hub knows that.
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STATUS = {
    401: "it does not exist, or needs a token: set HF_TOKEN, or run `hf auth login`",
    403: "its licence has to be accepted on its page first; then set HF_TOKEN",
    404: "there is no such repository",
    429: "too many requests; wait some minutes, or set HF_TOKEN",
}


class Unreachable(UserError):
    """The hub gives no answer, or not this file: another place may have it."""


def fetch_file(repository: str, names: Sequence[str], *, purpose: str) -> Tuple[Path, str]:
    """The first of `names` that the repository has, on this disk, and its SHA-256.

    Args:
        repository: `OWNER/NAME`.
        purpose: what it is for, which begins messages: `pretrained 'timm/...'`.

    Raises:
        Unreachable: neither in the cache nor to be had, though a network was asked for it.
        UserError: no package huggingface_hub; no such file; not in the cache and HF_HUB_OFFLINE is
            set; a damaged file, which is deleted; no room.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
        from huggingface_hub.utils.logging import disable_propagation
    except ImportError as error:
        raise UserError(
            f"{purpose}: needs huggingface_hub; pip install -r requirements-hub.txt, or download "
            f"{place_of(repository, names[0])} by hand and convert it (scripts/convert_weights.py)"
        ) from error
    disable_propagation()  # it has a handler of its own, and each line would be there twice
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    for name in names:
        with _one_line(purpose, repository, name):
            try:
                path = hf_hub_download(repository, name)
            except LocalEntryNotFoundError:  # an EntryNotFoundError too: it cannot be reached
                raise
            except EntryNotFoundError:
                continue
        return _checked(Path(path), purpose)
    raise UserError(f"{purpose}: {repository} has no {' nor '.join(names)}")


def place_of(repository: str, name: str) -> str:
    """Where the hub has a file, as a URL."""
    return f"{_endpoint()}/{repository}/resolve/main/{name}"


def _endpoint() -> str:
    with contextlib.suppress(ImportError):
        from huggingface_hub import constants

        return str(constants.ENDPOINT).rstrip("/")
    return "https://huggingface.co"


def _checked(path: Path, purpose: str) -> Tuple[Path, str]:
    """Of a file whose cache knows its SHA-256, that it is still so."""
    digest = file_sha256(path, WEIGHTS_BYTES)
    blob = path.resolve()
    if _SHA256.fullmatch(blob.name) and blob.name != digest:
        for damaged in {path, blob}:
            damaged.unlink(missing_ok=True)
        raise UserError(
            f"{purpose}: {blob} had another content than the hub's (SHA-256 {digest}) and was "
            "deleted; run it again"
        )
    return path, digest


@contextlib.contextmanager
def _one_line(purpose: str, repository: str, name: str) -> Iterator[None]:
    """What the package or the system raises, as one line with the remedy."""
    from huggingface_hub import constants, errors

    place = place_of(repository, name)
    by_hand = f"or bring {place} by hand and convert it (scripts/convert_weights.py)"
    try:
        yield
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        status = _status_of(error)
        reason = _STATUS.get(status or 0) or _reason_of(error, status)
        kind = UserError if constants.HF_HUB_OFFLINE else Unreachable
        raise kind(f"{purpose}: {place}: {reason}; {by_hand}") from error
    except errors.HfHubHTTPError as error:
        status = _status_of(error)
        reason = _STATUS.get(status or 0) or f"answered with status {status}"
        raise Unreachable(f"{purpose}: {place}: {reason}; {by_hand}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cache = constants.HF_HUB_CACHE
            reason = f"the disk of {cache} is full; make room, or set HF_HOME to another folder"
            raise UserError(f"{purpose}: {reason}") from error
        raise UserError(f"{purpose}: {place}: {on_one_line(error)}; {by_hand}") from error
    except Exception as error:  # of the HTTP library, which differs between versions
        if type(error).__module__.partition(".")[0] not in ("httpx", "requests", "httpcore"):
            raise
        raise Unreachable(f"{purpose}: {place}: {on_one_line(error)}; {by_hand}") from error


def _status_of(error: Optional[BaseException]) -> Optional[int]:
    """Of the answer that an error, or what caused it, is about."""
    while error is not None:
        response: Any = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def _reason_of(error: BaseException, status: Optional[int]) -> str:
    if status is not None:
        return f"answered with status {status}, and it is not in the cache"
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "not in the cache, and HF_HUB_OFFLINE is set; unset it where there is a network"
    cause = on_one_line(error.__cause__) if error.__cause__ else "no connection"
    return f"not in the cache, and cannot be reached ({cause}); set HF_ENDPOINT for a mirror"
