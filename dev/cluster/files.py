"""Writes files so that nobody ever reads half of one."""

from pathlib import Path


def write(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replaces the file in one move, and only when it changes: kube-proxy ends when its own is touched."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    draft.touch(mode=mode)
    draft.write_text(text)
    draft.rename(path)
