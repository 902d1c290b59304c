"""Where a model comes from: a folder, the Hugging Face hub, or an object store."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from sluice_server.errors import ModelLoadError

# Safetensors only: a pickle could run code.
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*/config.json"]
_PICKLES = ["*.bin"]
_CODE = ["*.py"]
_EXPECTED = (
    "expected a folder (/path or file:///path), a hub id (org/name, hf://org/name[@revision]) or s3://bucket/folder"
)


@dataclass(frozen=True, slots=True)
class Source:
    """A model on this machine.

    Attributes:
        folder: Holds config.json, weights and tokenizer.
        revision: The hub's commit, or a digest of what the object store holds; None for a folder.
    """

    folder: Path
    revision: str | None


def fetch(
    uri: str,
    revision: str | None,
    cache_dir: str,
    report: Callable[[str, str], None],
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> Source:
    """Finds or downloads a model.

    Args:
        uri: MODEL_PATH.
        revision: Branch, tag or commit on the hub; one behind an @ in the uri goes before it. Of an object store,
            the digest to insist on.
        cache_dir: For downloads.
        report: Told of a download.
        allow_pickle: Download weights in the old format, too.
        trust_remote_code: Download the model's own code, too.

    Raises:
        ModelLoadError: There is no such model; the text names what was looked for.
    """
    if uri.startswith("file://"):
        return _folder(Path(uri.removeprefix("file://")), uri)
    # As transformers does, a folder that is there goes before a hub id of the same words.
    if uri.startswith(("/", "./", "../")) or (Path(uri) / "config.json").exists():
        return _folder(Path(uri), uri)
    patterns = [*_FILES, *(_PICKLES if allow_pickle else ()), *(_CODE if trust_remote_code else ())]
    if uri.startswith("s3://"):
        return _from_store(uri, revision, cache_dir, patterns, report)
    if "://" in uri and not uri.startswith("hf://"):
        raise ModelLoadError(f"MODEL_PATH={uri}: unknown scheme; {_EXPECTED}")
    name, _, pinned = uri.removeprefix("hf://").partition("@")
    report("downloading", f"{name} from the hub")
    return _download(name, pinned or revision, cache_dir, patterns)


def _folder(folder: Path, uri: str) -> Source:
    if not folder.is_dir():
        raise ModelLoadError(
            f"MODEL_PATH={uri}: there is no folder {folder}; expected one with config.json and weights"
        )
    if not (folder / "config.json").exists():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise ModelLoadError(f"MODEL_PATH={uri}: no config.json in {folder}; it holds {found}")
    return Source(folder, None)


def _from_store(
    uri: str, revision: str | None, cache_dir: str, patterns: list[str], report: Callable[[str, str], None]
) -> Source:
    try:
        from sluice_server.model import s3  # noqa: PLC0415 - its client is an extra
    except ModuleNotFoundError as error:
        if error.name not in {"boto3", "botocore"}:
            raise
        raise ModelLoadError(
            f"MODEL_PATH={uri}: s3:// needs boto3, which is not installed; pip install 'sluice-server[s3]'"
        ) from error
    return Source(*s3.fetch(uri, revision, cache_dir, patterns, report))


def _download(name: str, revision: str | None, cache_dir: str, patterns: list[str]) -> Source:
    try:
        folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, allow_patterns=patterns))
    except HFValidationError as error:
        raise ModelLoadError(f"MODEL_PATH={name}: not a hub id; {_EXPECTED}") from error
    except RepositoryNotFoundError as error:
        raise ModelLoadError(f"MODEL_PATH={name}: the hub has no such model, or HF_TOKEN may not read it") from error
    except LocalEntryNotFoundError as error:
        raise ModelLoadError(f"MODEL_PATH={name}: not in {cache_dir}, and the hub cannot be reached") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelLoadError(f"MODEL_PATH={name}: the download failed: {error}") from error
    # A snapshot's folder is named by its commit.
    return Source(folder, folder.name)
