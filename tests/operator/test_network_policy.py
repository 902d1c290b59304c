"""Who may connect, as a NetworkPolicy."""

from typing import Any

from sluice_operator.network_policy import OPERATOR_NAME, network_policy

from tests.operator.builders import ROOT, service

OPERATOR = {
    "namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "sluice-operator"}},
}  # fmt: skip


def rules(**policy: Any) -> list[dict[str, Any]]:
    body = network_policy(service(networkPolicy={"enabled": True, **policy}))
    assert body["spec"]["policyTypes"] == ["Ingress"], "downloads are not restricted"
    assert body["spec"]["podSelector"]["matchLabels"]["sluice.dev/embeddingservice"] == "minilm"
    return body["spec"]["ingress"]


def ports(rule: dict[str, Any]) -> set[str]:
    return {p["port"] for p in rule["ports"]}


def test_without_names_every_pod_of_the_namespace_may_connect() -> None:
    clients, watchers = rules()
    assert (clients["from"], ports(clients)) == ([{"podSelector": {}}], {"grpc", "http"})
    assert (watchers["from"], ports(watchers)) == ([OPERATOR], {"http"})


def test_with_names_only_those_and_the_operator() -> None:
    shop = {"namespaceSelector": {"matchLabels": {"team": "shop"}}}
    prometheus = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    clients, watchers = rules(**{"from": [shop], "monitoringFrom": [prometheus]})
    assert clients["from"] == [shop]
    assert watchers["from"] == [OPERATOR, prometheus]


def test_the_chart_gives_the_operator_the_label_by_which_it_is_let_in() -> None:
    helpers = (ROOT / "charts/sluice/templates/_helpers.tpl").read_text()
    assert f"app.kubernetes.io/name: {OPERATOR_NAME}" in helpers
