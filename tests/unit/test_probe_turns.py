"""Whose turn it is to be probed: every chain in each round, every head in time, and a broken head alone is no reason to
load its group again."""

from collections import Counter

from slipway.serving.probe_order import CYCLE_S, MIN_PROBE_INTERVAL_S, Turns

WHOLE = {"colours": ("decode", "engine_a"), "shades": ("decode", "engine_b")}


def groups(count: int, *, of: int) -> dict[str, tuple[str, ...]]:
    return {f"g{group}h{head}": ("base", f"heads_{group}") for group in range(count) for head in range(of)}


def probe(turns: Turns, *, broken: tuple[str, ...] = (), rounds: int = 1) -> list[str]:
    """Ask as the supervisor does, with `broken` failing; returns who was asked."""
    asked, now = [], 0.0
    for _ in range(rounds * len(turns.chains)):
        now += turns.interval_s
        name = turns.next(now)
        assert name is not None
        asked.append(name)
        if name in broken:
            turns.failed(name, "no answer")
        else:
            turns.answered(name)
    return asked


def test_whole_classifiers_are_each_probed_once_a_second() -> None:
    turns = Turns(WHOLE, {})
    assert (turns.interval_s, turns.round_s, turns.turn_s) == (0.5, CYCLE_S, CYCLE_S)
    assert Counter(probe(turns, rounds=3)) == {"colours": 3, "shades": 3}


def test_each_round_probes_every_group_and_a_turn_every_head() -> None:
    turns = Turns(groups(16, of=60), {})
    assert turns.interval_s == MIN_PROBE_INTERVAL_S
    assert turns.turn_s == 16 * 60 * MIN_PROBE_INTERVAL_S
    asked = probe(turns, rounds=60)
    assert {name.partition("h")[0] for name in asked[:16]} == {f"g{group}" for group in range(16)}
    assert Counter(asked) == dict.fromkeys(groups(16, of=60), 1)


def test_without_a_loaded_classifier_nobody_has_a_turn() -> None:
    turns = Turns({}, {})
    assert turns.next(1.0) is None
    assert turns.interval_s == CYCLE_S
    assert turns.turn_s == 0.0


def test_a_classifier_that_fails_again_and_again_is_counted_until_it_answers() -> None:
    turns = Turns(WHOLE, {})
    assert [turns.failed("colours", "no answer") for _ in range(3)] == [1, 2, 3]
    assert turns.problems(WHOLE) == {"colours": "no answer", "shades": ""}
    assert not turns.none_answers(3)
    turns.answered("colours")
    assert turns.problem("colours") == ""
    assert turns.failed("colours", "no answer") == 1


def test_none_answers_once_every_chain_has_failed_often_enough() -> None:
    turns = Turns(WHOLE, {})
    for _ in range(3):
        turns.failed("colours", "no answer")
        turns.failed("shades", "no answer")
    assert turns.none_answers(3)


def test_a_failure_that_does_not_count_is_told_but_no_reason_to_load_steps_again() -> None:
    turns = Turns(WHOLE, {})
    turns.failed("colours", "no answer")
    assert turns.failed("colours", "no file for a connection", counts=False) == 0
    assert turns.problem("colours") == "no file for a connection"


def test_a_head_that_fails_alone_is_its_own_problem_after_another_of_its_group_answered() -> None:
    turns = Turns(groups(1, of=5), {})
    asked = probe(turns, broken=("g0h1",), rounds=12)
    assert asked[:4] == ["g0h0", "g0h1", "g0h2", "g0h1"], "a suspect is asked again after another"
    assert Counter(asked)["g0h1"] <= 4
    assert turns.alone == {"g0h1": "no answer"}
    assert [name for name, problem in turns.problems(groups(1, of=5)).items() if problem] == ["g0h1"]
    assert probe(turns, rounds=5)
    assert turns.alone == {}, "it answers again"


def test_several_broken_heads_in_a_row_do_not_add_up_to_a_broken_group() -> None:
    turns = Turns(groups(1, of=6), {})
    broken = ("g0h1", "g0h2", "g0h3")
    most = 0
    for _ in range(60):
        name = turns.next(0.0)
        assert name is not None
        if name in broken:
            turns.left_out(name, "NaN")
        else:
            turns.answered(name)
        most = max(most, turns.chain_of(name).failures)
    assert most == 0
    assert turns.alone.keys() == {*broken}


def test_a_group_of_which_no_head_answers_fails_as_one() -> None:
    turns = Turns(groups(2, of=5), {"g0h4": "NaN"})
    heads = [f"g0h{head}" for head in range(4)]
    counts = [turns.failed(name, "no answer") for name in (heads[0], heads[1], heads[0])]
    assert counts == [1, 2, 3]
    assert turns.problems(heads) == dict.fromkeys(heads, "no answer")
    assert turns.problem("g0h4") == "NaN"
    assert turns.problem("g1h0") == ""


def test_a_chain_that_failed_is_probed_every_second_time_and_at_most_once_a_second() -> None:
    turns = Turns(groups(16, of=3), {})
    first, now, asked = turns.next(0.0), 0.0, []
    assert first is not None
    turns.failed(first, "no answer")
    for _ in range(16):
        now += MIN_PROBE_INTERVAL_S
        name = turns.next(now)
        assert name is not None
        if name.startswith("g0"):
            asked.append(now)
            turns.failed(name, "no answer")
        else:
            turns.answered(name)
    assert len(asked) == 4
    assert all(later - earlier >= CYCLE_S for earlier, later in zip([0.0, *asked], asked, strict=False))
    assert turns.chains["base", "heads_0"].failures == 5
