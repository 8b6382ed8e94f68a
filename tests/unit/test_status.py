"""The status machine, as data."""

from app.jobs.status import FINAL, LIVE, TRANSITIONS, Status


def test_every_status_is_either_live_or_final() -> None:
    assert set(Status) == LIVE | FINAL
    assert not LIVE & FINAL


def test_a_status_knows_whether_it_is_final() -> None:
    assert {status for status in Status if status.is_final} == FINAL


def test_nothing_leaves_a_final_status() -> None:
    assert all(not TRANSITIONS[status] for status in FINAL)


def test_every_status_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_a_job_is_only_completed_after_it_ran() -> None:
    assert {status for status in Status if Status.COMPLETED in TRANSITIONS[status]} == {Status.RUNNING}


def test_every_status_can_be_reached() -> None:
    assert set().union(*TRANSITIONS.values()) == set(Status)


def test_the_stored_words_are_those_of_the_contract() -> None:
    assert [status.value for status in Status] == ["pending", "running", "completed", "failed", "cancelled"]


def test_ranks_rise_on_the_way_to_an_end() -> None:
    assert Status.PENDING.rank < Status.RUNNING.rank < min(status.rank for status in FINAL)


def test_no_end_outranks_another() -> None:
    assert len({status.rank for status in FINAL}) == 1
