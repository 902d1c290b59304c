"""Objects as last seen, whatever the order in which news of them comes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sluice_operator.store import Store


def body(
    name: str = "p", version: int = 1, *, kind: str = "Pod", uid: str = "u", service: str | None = "s"
) -> dict[str, Any]:
    labels = {} if service is None else {"sluice.dev/embeddingservice": service}
    metadata = {"namespace": "n", "name": name, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": kind, "metadata": {**metadata, "managedFields": ["long"]}}


def versions(store: Store) -> list[str]:
    return [b["metadata"]["resourceVersion"] for b in store.owned(("n", "s"), "Pod")]


def a_store() -> tuple[Store, list[Any]]:
    heard: list[Any] = []
    return Store(heard.append), heard


def test_news_is_told_once() -> None:
    store, heard = a_store()
    assert store.put(body(version=1))
    assert not store.put(body(version=1))
    assert heard == [("n", "s")]
    assert "managedFields" not in store.owned(("n", "s"), "Pod")[0]["metadata"]


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store, _ = a_store()
    store.put(body(version=9))
    assert not store.put(body(version=8))
    assert versions(store) == ["9"]


def test_what_is_gone_does_not_come_back() -> None:
    store, heard = a_store()
    store.put(body(version=1))
    store.remove(body(version=2))
    assert not store.put(body(version=1))
    assert versions(store) == []
    assert len(heard) == 2


def test_the_end_of_an_object_does_not_take_its_successor() -> None:
    store, _ = a_store()
    store.put(body(version=1, uid="old"))
    store.put(body(version=5, uid="new"))
    store.remove(body(version=4, uid="old"))
    assert versions(store) == ["5"]


def test_an_object_that_changes_its_label_leaves_its_service() -> None:
    store, heard = a_store()
    store.put(body(version=1))
    store.put(body(version=2, service="other"))
    assert versions(store) == []
    assert heard == [("n", "s"), ("n", "s"), ("n", "other")]


def test_a_service_of_which_only_pods_are_left_is_known_until_they_are_gone() -> None:
    store, _ = a_store()
    store.put(body(kind="EmbeddingService", name="alone", uid="e"))
    store.put(body())
    assert store.known() == {("n", "alone"), ("n", "s")}
    store.remove(body())
    assert store.known() == {("n", "alone")}


def test_a_list_adds_what_was_missed_and_removes_what_is_gone() -> None:
    store, _ = a_store()
    store.put(body("stays", 3))
    store.put(body("gone", 4, uid="g"))
    store.put(body("younger-than-the-list", 20, uid="y"))
    news = store.take_list("Pod", None, [body("stays", 3), body("missed", 5, uid="m")], revision=10)
    assert news == 2
    assert {b["metadata"]["name"] for b in store.owned(("n", "s"), "Pod")} == {
        "stays",
        "missed",
        "younger-than-the-list",
    }


def test_a_list_of_one_namespace_says_nothing_of_another() -> None:
    store, _ = a_store()
    store.put(body(version=1))
    assert store.take_list("Pod", "elsewhere", [], revision=10) == 0
    assert versions(store) == ["1"]


@given(st.permutations([body(version=v) for v in range(1, 6)]))
def test_the_newest_version_wins_in_any_order(bodies: list[dict[str, Any]]) -> None:
    store, _ = a_store()
    for one in bodies:
        store.put(one)
    assert versions(store) == ["5"]
