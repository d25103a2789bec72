"""Weights of the hub: taken from its cache where they lie there, and a missing network is found out in seconds.

`open_clip` asks the hub for every file with five retries each, a minute in all, and logs each of them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained

from tagclip.errors import WeightsError, first_line

PROBE_SECONDS = 8.0  # the longest that the hub may take to answer
FILE_REMEDY = "--pretrained FILE (in Python pretrained=FILE) takes weights that were downloaded elsewhere"
FOLDER_REMEDY = "--model local-dir:FOLDER takes a copy of the repository that was downloaded elsewhere"

_silence = threading.Lock()


def fetch_weights(tag: Mapping, name: str, cache_dir: str | Path | None) -> Path:
    """The file of an open_clip tag: from the hub's cache, where it is not asked for again, or downloaded.

    Args:
        tag: open_clip's entry of the tag.
        name: of the model, for messages.
        cache_dir: the hub's cache; None for its default.

    Raises:
        WeightsError: not in the cache, and the hub does not answer, or refuses.
    """
    folder = None if cache_dir is None else str(cache_dir)
    if tag.get("hf_hub"):
        repository, _, file = tag["hf_hub"].rpartition("/")
        cached = find_cached(repository, _with_safetensors(file or HF_WEIGHTS_NAME), cache_dir)
        if cached is not None:
            return cached
        require_hub(repository, file or HF_WEIGHTS_NAME, name, FILE_REMEDY)
    try:
        path = download_pretrained(tag, cache_dir=folder)
    except Exception as error:  # the download clients raise a dozen unrelated types, all meaning "not fetched"
        raise WeightsError(f"{name}: weights cannot be downloaded ({first_line(error)}); {FILE_REMEDY}") from error
    if not path:
        raise WeightsError(f"{name}: open_clip knows no address for these weights; {FILE_REMEDY}")
    return Path(path)


def find_cached(repository: str, files: tuple[str, ...], cache_dir: str | Path | None) -> Path | None:
    """The first of these files of a repository's main branch that lies in the hub's cache; asks no network."""
    for file in files:
        found = try_to_load_from_cache(repository, file, cache_dir=cache_dir)
        if isinstance(found, str):  # else None, or a mark that the repository has no such file
            return Path(found)
    return None


def require_hub(repository: str, file: str, name: str, remedy: str) -> None:
    """Ask the hub once for a file, without retries and without its log.

    Args:
        remedy: what to do without a network.

    Raises:
        WeightsError: no answer within PROBE_SECONDS, no network, or a hub that is down or set to offline. That the
            repository lacks the file, wants an account or has an impossible name is left to the download.
    """
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file), timeout=PROBE_SECONDS)
            outcome.append(None)
        except Exception as error:  # as in fetch_weights
            outcome.append(error)

    # In a thread, as the timeout of a request does not hold for looking up the host's name or for retries.
    thread = threading.Thread(target=ask, daemon=True)
    with _silent("huggingface_hub"):
        thread.start()
        thread.join(PROBE_SECONDS)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {PROBE_SECONDS:g} s")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if error is None or isinstance(error, ValueError) or (status is not None and status < 500):
        return
    reason = first_line(error)
    raise WeightsError(f"{name}: not in the cache, and the hub cannot be reached ({reason}); {remedy}") from error


def _with_safetensors(file: str) -> tuple[str, ...]:
    """A repository's names of one set of weights, in open_clip's order."""
    if file == HF_WEIGHTS_NAME:
        return HF_SAFE_WEIGHTS_NAME, file
    return Path(file).with_suffix(".safetensors").name, file


@contextmanager
def _silent(name: str) -> Iterator[None]:
    library = logging.getLogger(name)
    with _silence:  # one at a time, so that the level that returns is the user's
        before = library.level
        library.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            library.setLevel(before)
