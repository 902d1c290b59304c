"""Models from a hub that speaks as the Hugging Face hub does, on loopback: revisions, tokens, offline starts, refusals."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
TOKEN = "hf_of_the_test"
# In a process of its own: the hub's client reads its environment when it is imported.
_FETCH = """
import json, sys
from sluice_server.errors import ModelLoadError
from sluice_server.model import sources
try:
    source = sources.fetch(sys.argv[1], None, sys.argv[2], lambda *told: None)
    print(json.dumps({"folder": str(source.folder), "revision": source.revision}))
except ModelLoadError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass
class Hub:
    """Serves org/tiny to everybody, and org/private to who brings the token.

    Attributes:
        asked: Paths of all requests, in their order.
    """

    folder: Path
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            parts = parts[2:]
        name, revision = "/".join(parts[:2]), parts[3]
        if name not in {"org/tiny", "org/private"}:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if name == "org/private" and authorization != f"Bearer {TOKEN}":
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        commit = COMMITS.get(revision, revision)
        if commit not in COMMITS.values():
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = sorted(one for one in self.folder.iterdir() if one.is_file())
        if parts[2] == "revision":
            siblings = [{"rfilename": one.name} for one in files]
            return 200, {}, json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()
        if parts[2] == "tree":
            tree = [{"type": "file", "path": one.name, "size": one.stat().st_size, "oid": "0" * 40} for one in files]
            return 200, {}, json.dumps(tree).encode()
        content = (self.folder / parts[4]).read_bytes()
        return 200, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": commit}, content


@pytest.fixture
def hub(family_folder: Callable[[str], Path]) -> Iterator[Hub]:
    served = Hub(family_folder("bert"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = served.answer(urlsplit(self.path).path, self.headers["Authorization"])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()


def fetch(hub: Hub, uri: str, cache: Path, **environment: str) -> dict[str, str]:
    """What a server's process would have found, or the sentence that it would have ended with."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, uri, str(cache)],
        env=clean | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache / "home")} | environment,
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize(("uri", "branch"), [("org/tiny", "main"), ("hf://org/tiny@v1", "v1")])
def test_a_model_comes_whole_with_the_commit_that_its_revision_stands_for(
    hub: Hub, tmp_path: Path, uri: str, branch: str
) -> None:
    found = fetch(hub, uri, tmp_path)
    assert found["revision"] == COMMITS[branch]
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (Path(found["folder"]) / name).read_bytes() == (hub.folder / name).read_bytes()


def test_a_private_model_comes_with_the_token(hub: Hub, tmp_path: Path) -> None:
    assert fetch(hub, "org/private", tmp_path, HF_TOKEN=TOKEN)["revision"] == COMMITS["main"]


@pytest.mark.parametrize("environment", [{}, {"HF_TOKEN": "hf_of_somebody_else"}], ids=["no token", "a wrong one"])
def test_a_private_model_without_its_token_is_named_and_the_token_too(
    hub: Hub, tmp_path: Path, environment: dict[str, str]
) -> None:
    error = fetch(hub, "org/private", tmp_path, **environment)["error"]
    assert error == "MODEL_PATH=org/private: the hub has no such model, or HF_TOKEN may not read it"


def test_a_revision_that_the_hub_lacks_is_named(hub: Hub, tmp_path: Path) -> None:
    error = fetch(hub, "org/tiny@v2", tmp_path)["error"]
    assert error.startswith("MODEL_PATH=org/tiny: the download failed: ")
    assert "v2" in error


def test_what_came_once_is_served_offline_and_while_the_hub_is_away(hub: Hub, tmp_path: Path) -> None:
    first = fetch(hub, "org/tiny", tmp_path)
    asked = len(hub.asked)
    assert fetch(hub, "org/tiny", tmp_path, HF_HUB_OFFLINE="1") == first
    assert fetch(hub, "org/tiny", tmp_path, HF_ENDPOINT="http://127.0.0.1:9") == first
    assert len(hub.asked) == asked


def test_a_second_start_downloads_nothing_again(hub: Hub, tmp_path: Path) -> None:
    first = fetch(hub, "org/tiny", tmp_path)
    hub.asked.clear()
    assert fetch(hub, "org/tiny", tmp_path) == first
    assert not [path for path in hub.asked if "/resolve/" in path]
