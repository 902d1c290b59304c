"""Where models come from: folders, and the hub's cache without a network."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from sluice_server.errors import ModelLoadError
from sluice_server.model import sources

from tests.server.model.conftest import load

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fetch(uri: str, revision: str | None = None, cache_dir: str = "/nonexistent") -> sources.Source:
    return sources.fetch(uri, revision, cache_dir, lambda *_: None)


@pytest.fixture
def hub_cache(family_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a download of org/tiny would have left, with HF_HUB_OFFLINE set."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = tmp_path / "models--org--tiny"
    shutil.copytree(family_folder("bert"), repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "refs" / "v1").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder(family_folder: Callable[[str], Path], form: str) -> None:
    folder = family_folder("bert")
    assert fetch(form.format(folder)) == sources.Source(folder, None)


def test_a_folder_from_here_goes_before_a_hub_id_of_the_same_words(
    family_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "tiny").symlink_to(family_folder("bert"))
    monkeypatch.chdir(tmp_path)
    assert fetch("org/tiny") == sources.Source(Path("org/tiny"), None)


@pytest.mark.parametrize(
    "uri", ["org/tiny", "hf://org/tiny", "hf://org/tiny@main", "org/tiny@v1", f"org/tiny@{COMMIT}"]
)
def test_a_hub_id_offline(hub_cache: Path, uri: str) -> None:
    source = fetch(uri, cache_dir=str(hub_cache))
    assert source.revision == COMMIT
    assert (source.folder / "config.json").exists()


@pytest.mark.parametrize(("trusted", "comes"), [(False, False), (True, True)])
def test_a_models_own_code_comes_only_where_it_is_trusted(
    monkeypatch: pytest.MonkeyPatch, *, trusted: bool, comes: bool
) -> None:
    asked: list[str] = []

    def download(_name: str, *, allow_patterns: list[str], **_others: object) -> str:
        asked.extend(allow_patterns)
        return "/somewhere/revision"

    monkeypatch.setattr(sources, "snapshot_download", download)
    sources.fetch("org/tiny", None, "/nonexistent", lambda *_: None, trust_remote_code=trusted)
    assert ("*.py" in asked) == comes


def test_a_revision_of_its_own_setting(hub_cache: Path) -> None:
    assert fetch("org/tiny", "v1", str(hub_cache)).revision == COMMIT


def test_a_hub_id_is_served_with_its_commit(hub_cache: Path) -> None:
    assert load(Path("org/tiny"), cache_dir=str(hub_cache)).backend.info.revision == COMMIT


@pytest.mark.parametrize("uri", ["org/other", "org/tiny@v2"])
def test_what_the_cache_lacks_is_named(hub_cache: Path, uri: str) -> None:
    with pytest.raises(ModelLoadError, match=r"MODEL_PATH=org/\w+: not in .*, and the hub cannot be reached"):
        fetch(uri, cache_dir=str(hub_cache))


def test_a_folder_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelLoadError, match=r"there is no folder /no/such; expected one with config\.json"):
        fetch("/no/such")


def test_a_folder_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ModelLoadError, match=r"no config\.json in .*; it holds notes\.txt"):
        fetch(str(tmp_path))


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [("ftp://x/y", "unknown scheme"), ("a/b/c", "not a hub id")],
)
def test_other_addresses_are_refused(uri: str, sentence: str) -> None:
    with pytest.raises(ModelLoadError, match=f"{sentence}.*expected a folder .*, a hub id .* or s3://"):
        fetch(uri)
