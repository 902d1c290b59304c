"""What a killed process leaves behind."""

from pathlib import Path

import pytest
from sluice_server.model.s3.journal import Journal, Part
from sluice_server.model.s3.store import StoredObject

STORED = StoredObject("models/tiny/a", "a", 20, '"etag"', "")
FIRST, SECOND = Part(STORED, 0, 10), Part(STORED, 10, 10)


def test_parts_outlive_the_process(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        assert not journal.holds(FIRST)
        journal.add(FIRST)
    with Journal(tmp_path / "journal") as journal:
        assert journal.holds(FIRST)
        assert not journal.holds(SECOND)
        assert not journal.holds(Part(STORED, 0, 11)), "another size of parts"


def test_what_is_forgotten_stays_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add(FIRST)
        journal.forget(STORED)
        journal.add(SECOND)
    with Journal(tmp_path / "journal") as journal:
        assert not journal.holds(FIRST)
        assert journal.holds(SECOND)


@pytest.mark.parametrize("torn", [b'["a", 10', b"\x00\xff", b"[]", b'{"a": 1}', b'["a", 1, "x"]', b'[["a"], 1, 2]'])
def test_a_torn_line_counts_for_nothing(tmp_path: Path, torn: bytes) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.add(FIRST)
    with (tmp_path / "journal").open("ab") as file:
        file.write(torn)
    with Journal(tmp_path / "journal") as journal:
        assert journal.holds(FIRST)
        assert not journal.holds(SECOND)
        journal.add(SECOND)
    with Journal(tmp_path / "journal") as journal:
        assert journal.holds(SECOND)
