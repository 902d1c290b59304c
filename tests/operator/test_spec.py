"""Resources into values."""

import pytest
from sluice_operator.spec import InvalidResourceError, parse

from tests.operator.builders import resource, service


def test_the_crds_defaults_are_enough() -> None:
    spec = service().spec
    assert spec.server.buckets == (16, 32, 64, 128, 256, 512)
    assert spec.server.backpressure.latency.soft_p95_milliseconds == 100
    assert spec.scaling.scale_down_stabilization_seconds == 300
    gates = spec.readiness
    assert (gates.mode, gates.close_above_percent, gates.open_below_percent) == ("Dynamic", 200, 80)
    assert (gates.min_hold_seconds, gates.max_closed_percent) == (30, 50)


@pytest.mark.parametrize(
    ("spec", "fixed", "fewest", "most"),
    [
        ({"scaling": {"mode": "Internal", "minReplicas": 2, "maxReplicas": 5}}, None, 2, 5),
        ({"scaling": {"mode": "Off", "minReplicas": 2}}, 2, 2, 2),
        ({"scaling": {"mode": "Off", "minReplicas": 2}, "replicas": 4}, 4, 4, 4),
        ({"scaling": {"mode": "Off"}, "replicas": 0}, 0, 0, 0),
        ({"scaling": {"mode": "External"}, "replicas": 3}, 3, 3, 3),
    ],
)
def test_how_many_pods_a_spec_can_lead_to(spec: dict[str, object], fixed: int | None, fewest: int, most: int) -> None:
    parsed = service(**spec).spec
    assert (parsed.fixed_replicas, parsed.fewest_replicas, parsed.most_replicas) == (fixed, fewest, most)


def test_a_resource_of_another_time_names_what_is_wrong_with_it() -> None:
    old = resource()
    del old["spec"]["scaling"]["mode"]
    old["spec"]["server"]["device"] = "tpu"
    with pytest.raises(InvalidResourceError, match=r"shop/minilm: .*device.*scaling\.mode"):
        parse(old)


def test_a_service_that_is_being_deleted() -> None:
    going = resource()
    going["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert parse(going).is_being_deleted
    assert not service().is_being_deleted
