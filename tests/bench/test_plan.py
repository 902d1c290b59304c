"""What a run measures."""

from bench import plan, roster
from bench.plan import Options

ALL = Options(("queries", "products"), plan.GROUPS, seconds=1.5, rounds=3)


def test_what_is_compared_lies_in_one_stage() -> None:
    stage = next(one for one in plan.stages(ALL) if one.cells[0].group == "ids-1")
    assert [cell.mix for cell in stage.cells] == ["queries"]
    assert set(stage.names) == {roster.NATIVE, roster.FLOAT32, roster.PADDED, roster.CORAL, roster.CORAL_FLOAT32}


def test_what_floors_are_set_for_has_turns_of_many_batches_and_twice_the_rounds() -> None:
    (stage,) = plan.stages(Options(("passages",), ("ids-1",), 1.5, 3))
    assert (stage.seconds, stage.rounds) == (6.0, 6)


def test_the_steps_of_growth_alternate_with_each_other() -> None:
    steps = {stage.cells[0].group: [cell.clients for cell in stage.cells] for stage in plan.stages(ALL)}
    assert steps["clients"] == list(plan.GROWING_CLIENTS)


def test_larger_requests_come_from_fewer_clients() -> None:
    (stage,) = [stage for stage in plan.stages(ALL) if stage.cells[0].group == "texts"]
    assert [(cell.texts, cell.clients) for cell in stage.cells][0::5] == [(1, 32), (512, 2)]


def test_peers_that_take_texts_only_have_no_turn_where_ids_are_sent() -> None:
    for stage in plan.stages(ALL):
        takes_ids = all(cell.input == "ids" for cell in stage.cells)
        assert not (takes_ids and any(name.startswith("infinity") for name in stage.names))


def test_without_a_server_means_without_a_server() -> None:
    assert not [name for name in plan.entrants("offline") if name.startswith(("Sluice", "coral", "infinity", "text-"))]


def test_many_clients_have_found_their_places_before_they_are_measured() -> None:
    (stage,) = [stage for stage in plan.stages(ALL) if stage.cells[0].group == "clients"]
    assert all(cell.lead_seconds for cell in stage.cells)
    assert roster.PATIENT in stage.names


def test_a_single_client_asks_for_one_mix_so_that_it_is_compared_with_the_forward_of_the_same_texts() -> None:
    options = Options(("queries", "passages"), ("alone",), 1.5, 3)
    assert [cell.mix for stage in plan.stages(options) for cell in stage.cells] == ["queries"]


def test_only_those_who_are_named_take_part() -> None:
    options = Options(("products",), ("ids-1",), 1.5, 3, only=("coral",))
    assert [name for name in roster.NAMES if options.wants(name)] == [roster.CORAL, roster.CORAL_FLOAT32]


def test_nobody_is_started_who_has_no_turn() -> None:
    options = Options(("products",), ("offline",), 1.5, 3)
    assert not any(options.wants(name) for name in (roster.NATIVE, roster.CORAL, "infinity torch"))


def test_what_is_measured_between_the_rounds_of_a_single_client_is_started_for_it_alone() -> None:
    options = Options(("products",), ("alone",), 1.5, 3)
    assert options.wants(roster.COMPILED)
    assert options.wants(roster.COMPILED_FLOAT32)
    assert all(roster.COMPILED not in stage.names for stage in plan.stages(options))
