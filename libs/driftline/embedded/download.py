"""Fetch one file over HTTP: resumable, verified, never half there.

1. Bytes go to ``<target>.part``; an interrupted fetch goes on where it stopped (``Range``).
2. The finished part is hashed. A wrong one is deleted and fetched once more from the beginning.
3. Only a verified file gets its name, by an atomic rename: what has its name needs no check again.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from driftline.runtime.errors import ConfigurationError, UnavailableError

#: Interruptions in a row; one after which more than a little had come does not count.
_ATTEMPTS = 5
_LITTLE = 1 << 20


class ChecksumError(ConfigurationError):
    """The server's file is not the one that the lock names."""


def fetch(
    client: httpx.Client,
    url: str,
    target: Path,
    *,
    sha256: str,
    size: int,
    progress: Callable[[int], object] = lambda _total: None,
    pause: float = 0.5,
) -> None:
    """Fetch ``url`` to ``target``; ``progress`` hears how many bytes are there.

    Raises
    ------
    UnavailableError
        The server cannot be reached, or keeps breaking off; the part stays for the next try.
    ChecksumError
        The file was fetched twice and is not what it must be.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for _ in range(2):
        _complete(client, url, part, size=size, progress=progress, pause=pause)
        if part.stat().st_size == size and _digest(part) == sha256:
            part.replace(target)
            return
        part.unlink()
    msg = (
        f"{url} does not have the checksum that the lock names; a proxy may have changed it. "
        "Nothing was kept. Try another network, or set DRIFTLINE_MAVEN_REPOSITORY to a mirror"
    )
    raise ChecksumError(msg)


def _complete(
    client: httpx.Client, url: str, part: Path, *, size: int, progress: Callable[[int], object], pause: float
) -> None:
    """Bring the part to its full size, going on after each interruption."""
    failure = "no answer"
    attempt = 0
    while attempt < _ATTEMPTS:
        before = _length(part)
        try:
            _continue(client, url, part, size=size, progress=progress)
        except httpx.HTTPStatusError as error:
            failure = f"HTTP status {error.response.status_code}"
            if error.response.status_code in {401, 403, 404, 410}:
                break
        except httpx.HTTPError as error:
            failure = str(error) or type(error).__name__
        else:
            if _length(part) >= size:
                return
            failure = "the connection broke off"
        attempt = 0 if _length(part) > before + _LITTLE else attempt + 1
        time.sleep(pause * 2**attempt)
    msg = (
        f"cannot fetch {url}: {failure}. Check the network (HTTPS_PROXY and SSL_CERT_FILE are honoured) and "
        "run it again: it goes on where it stopped"
    )
    raise UnavailableError(msg)


def _continue(
    client: httpx.Client, url: str, part: Path, *, size: int, progress: Callable[[int], object]
) -> None:
    have = _length(part)
    if have >= size:  # of the right size, or too long: the checksum decides
        progress(have)
        return
    with client.stream("GET", url, headers={"Range": f"bytes={have}-"} if have else {}) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            return
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:  # the server starts anew
            have = 0
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                progress(have)
                if have > size:
                    return


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
