"""A model from an object store: s3://bucket/folder."""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sluice_server.errors import ModelLoadError
from sluice_server.model.s3.errors import ObjectChangedError
from sluice_server.model.s3.journal import Journal
from sluice_server.model.s3.snapshots import Snapshots
from sluice_server.model.s3.store import Store, StoredObject
from sluice_server.model.s3.transfer import MIB, Transfer, TransferLimits

logger = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin")
# An upload that goes on while we download ends sometime, or it is no upload.
_TRIES = 3
_SHOWN_NAMES = 10
_REVISION = re.compile(r"[0-9a-f]{16}")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")


def fetch(
    uri: str,
    revision: str | None,
    cache_dir: str,
    patterns: Sequence[str],
    report: Callable[[str, str], None],
    limits: TransferLimits | None = None,
) -> tuple[Path, str]:
    """Downloads a model unless the cache has it.

    Args:
        uri: s3://bucket/folder.
        revision: The one to insist on, as an earlier call returned it; None takes what is there now.
        cache_dir: May be shared by many processes.
        patterns: Of the files that matter.
        report: Told of the download.
        limits: How hard to pull.

    Returns:
        The model's folder, and its revision: a digest of the objects' names, ETags and sizes.

    Raises:
        ModelLoadError: A sentence says what is wrong and what to check.
    """
    bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ModelLoadError(f"MODEL_PATH={uri}: {bucket!r} is no bucket's name; expected s3://bucket/folder")
    uri = uri.rstrip("/")
    snapshots = Snapshots(cache_dir, uri)
    if revision and _REVISION.fullmatch(revision) and (folder := snapshots.find(revision)):
        return folder, revision
    limits = limits or TransferLimits()
    report("downloading", f"{uri}: asking what there is")
    with contextlib.closing(Store(uri, bucket, f"{prefix}/" if prefix else "", limits.threads)) as store:
        for _ in range(_TRIES):
            objects = choose(uri, store.list(), patterns)
            found = identity(uri, objects)
            if revision and revision != found:
                raise ModelLoadError(f"MODEL_REVISION={revision}: {uri} holds {found} now; expected that, or none")
            try:
                return snapshots.find(found) or _download(store, objects, found, snapshots, limits, report), found
            except ObjectChangedError as error:
                changed = str(error)
                logger.warning("%s changed during the download: starting again", changed)
            except OSError as error:
                raise ModelLoadError(f"MODEL_PATH={uri}: MODEL_CACHE_DIR={cache_dir}: {error}") from error
    raise ModelLoadError(
        f"MODEL_PATH={uri}: {changed} changed during the download, {_TRIES} times; expected an upload that is finished"
    )


def choose(uri: str, stored: Sequence[StoredObject], patterns: Sequence[str]) -> list[StoredObject]:
    """The files of the model, in order of their names; weights count in the folder itself alone, not below it.

    Raises:
        ModelLoadError: There is no model; the text says what there is.
    """
    chosen = [one for one in sorted(stored, key=lambda one: one.name) if _matters(one.name, patterns)]
    for one in chosen:
        if any(step in {"", ".", ".."} for step in one.name.split("/")):
            raise ModelLoadError(
                f"MODEL_PATH={uri}: {one.key!r} is no path of a file; expected no empty, . or .. steps"
            )
    if not stored:
        raise ModelLoadError(f"MODEL_PATH={uri}: there is nothing under it; check the folder's name")
    if not any(one.name == "config.json" for one in chosen):
        raise ModelLoadError(f"MODEL_PATH={uri}: no config.json; it holds {_shown(stored)}")
    if not any(one.name.endswith(_WEIGHTS) for one in chosen):
        raise ModelLoadError(f"MODEL_PATH={uri}: no weights; expected *.safetensors; it holds {_shown(stored)}")
    return chosen


def _shown(stored: Sequence[StoredObject]) -> str:
    names = sorted(one.name for one in stored)
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


def _matters(name: str, patterns: Sequence[str]) -> bool:
    wanted = any(fnmatchcase(name, pattern) for pattern in patterns)
    return wanted and not ("/" in name and name.endswith(_WEIGHTS))


def identity(uri: str, objects: Sequence[StoredObject]) -> str:
    """The revision: 16 hexadecimal digits that change when any file of the model does."""
    content = [uri, *sorted([one.key, one.version, one.size] for one in objects)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _download(
    store: Store,
    objects: Sequence[StoredObject],
    revision: str,
    snapshots: Snapshots,
    limits: TransferLimits,
    report: Callable[[str, str], None],
) -> Path:
    """The published folder, downloaded by this process or by another one meanwhile.

    Raises:
        ObjectChangedError: An object is not what was listed any more.
    """

    def waits(seconds: float) -> None:
        report("downloading", f"{store.uri}: another process does; waiting for {seconds:.0f} s")

    with snapshots.claim(revision, waits) as claim:
        if claim is None:
            published = snapshots.find(revision)
            assert published is not None, "nobody removes what was published"
            return published

        def tell(sentence: str) -> None:
            claim.heartbeat()
            report("downloading", sentence)

        with Journal(claim.journal) as journal:
            proofs = Transfer(store, claim.files, journal, limits, tell).run(objects)
        _check_unchanged(store, objects)
        size = sum(one.size for one in objects)
        logger.info("downloaded %s, %.0f MiB; files proved by %s", revision, size / MIB, dict(proofs))
        return snapshots.publish(claim, revision)


def _check_unchanged(store: Store, objects: Sequence[StoredObject]) -> None:
    """Files that were listed while an upload was under way may belong to two models."""
    now = {one.name: one.version for one in store.list()}
    for one in objects:
        if now.get(one.name) != one.version:
            raise ObjectChangedError(one.name)
