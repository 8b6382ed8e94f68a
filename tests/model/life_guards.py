"""The guards of a job's life: what its row lets through, and what becomes of those who lose it.

As in :mod:`tests.model.guards`: what each guards, where it stands, what the text becomes without it, who notices.
"""

from tests.model.mutation import Mutant


def _guard(file: str, guard: str, old: str, new: str, test: str) -> Mutant:
    where = test if "/" in test else f"tests/integration/{test}"
    return Mutant(guard=guard, file=file, old=old, new=new, test=where)


LIFE_GUARDS = (
    _guard(
        "app/history/statements.py",
        "what a start tells of was started by it",
        "WHERE status = 'running' AND claim = row_claim AND interruptions NOT BETWEEN :alone_from AND :alone_until",
        "WHERE status = 'running' AND interruptions NOT BETWEEN :alone_from AND :alone_until",
        "test_writer.py::test_a_job_that_runs_under_another_claim_does_not_start",
    ),
    _guard(
        "app/history/statements.py",
        "what has ended is not told as started",
        "WHERE status = 'running' AND claim = row_claim AND interruptions",
        "WHERE claim = row_claim AND interruptions",
        "test_writer.py::test_an_ended_job_never_starts_again",
    ),
    _guard(
        "app/history/statements.py",
        "a due time that a settle does not name stays",
        "due_at = COALESCE(row_due_at, due_at)",
        "due_at = row_due_at",
        "test_writer.py::test_a_released_job_burns_no_failure_and_keeps_its_due_time",
    ),
    _guard(
        "app/history/statements.py",
        "a job that is tried again has not ended",
        "CASE WHEN row_status = 'pending' THEN NULL ELSE row_ended_at END",
        "row_ended_at",
        "test_writer.py::test_a_retry_waits_for_its_due_time",
    ),
    _guard(
        "app/history/statements.py",
        "a release is counted",
        "CASE WHEN row_outcome = 'released' THEN 1",
        "CASE WHEN false THEN 1",
        "test_writer.py::test_a_released_job_burns_no_failure_and_keeps_its_due_time",
    ),
    _guard(
        "app/history/statements.py",
        "a stale attempt writes no attempt",
        "FROM background_tasks JOIN {{rows}} ON {_FENCE}",
        "FROM background_tasks JOIN {{rows}} ON task_id = row_id",
        "test_writer.py::test_only_the_attempt_and_the_claim_that_run_can_settle",
    ),
    _guard(
        "app/history/statements.py",
        "a completion is fenced",
        "is_retryable = NULL\nFROM {{rows}}\nWHERE {_FENCE}",
        "is_retryable = NULL\nFROM {{rows}}\nWHERE task_id = row_id",
        "test_writer.py::test_only_the_attempt_and_the_claim_that_run_can_settle",
    ),
    _guard(
        "app/history/writer.py",
        "only a waiting job expires",
        "            jobs.c.status == Status.PENDING,\n            status=Status.FAILED,",
        "            status=Status.FAILED,",
        "test_writer.py::test_what_is_for_waiting_jobs_spares_a_running_one",
    ),
    _guard(
        "app/history/writer.py",
        "the end of a job drops its checkpoint",
        "return self.status.is_final and (self.has_checkpoint or self.attempts > 1)",
        "return False",
        "test_checkpoints.py::test_the_end_of_the_job_drops_the_checkpoint",
    ),
    _guard(
        "app/history/writer.py",
        "a retry keeps the checkpoint",
        "return self.status.is_final and (self.has_checkpoint or self.attempts > 1)",
        "return True",
        "test_checkpoints.py::test_a_retry_keeps_the_checkpoint_and_the_end_of_a_later_attempt_drops_it",
    ),
    _guard(
        "app/history/writer.py",
        "a stale end drops no checkpoint",
        "if s.drops_checkpoint and s.id in won]",
        "if s.drops_checkpoint]",
        "test_checkpoints.py::test_a_stale_end_drops_no_checkpoint",
    ),
    _guard(
        "app/history/writer.py",
        "a cancel drops the checkpoint",
        "                await connection.execute(_drop_checkpoints([job.id]))\n",
        "                pass\n",
        "test_checkpoints.py::test_a_cancel_drops_the_checkpoint",
    ),
    _guard(
        "app/history/accepts.py",
        "an accept can be sent again",
        '"WHERE true ON CONFLICT (task_id) DO NOTHING"',
        '"WHERE true"',
        "test_writer.py::test_an_accept_can_be_sent_again",
    ),
    _guard(
        "app/lifecycle.py",
        "an ended job is not rung",
        "if not job.status.is_final]",
        "if True]",
        "test_lifecycle.py::test_an_ended_job_is_not_put_back",
    ),
    _guard(
        "app/lifecycle.py",
        "entries of stock clients are no ghosts",
        "if body is not None and body.is_ours]",
        "if True]",
        "test_sweep.py::test_entries_without_a_live_row_leave_and_those_of_stock_clients_stay",
    ),
    _guard(
        "app/lifecycle.py",
        "the worker of a cancelled job is told",
        "            if not was_waiting:\n                await tell",
        "            if False:\n                await tell",
        "test_lifecycle.py::test_a_running_job_is_cancelled_in_its_row_and_its_worker_told",
    ),
    _guard(
        "app/lifecycle.py",
        "a stale end is told to nobody",
        "strict=True) if answer is True]\n        self._outbox",
        "strict=True)]\n        self._outbox",
        "test_lifecycle.py::test_a_stale_end_is_told_to_nobody",
    ),
    _guard(
        "app/lifecycle.py",
        "a tick is rung once",
        "if not await self._writer.accept_tick(job):\n            return None",
        "await self._writer.accept_tick(job)",
        "test_lifecycle.py::test_a_tick_is_submitted_once_and_rung_once",
    ),
    _guard(
        "app/lifecycle.py",
        "only what has failed or was cancelled is retried",
        "if not may_retry(job):",
        "if False:",
        "test_lifecycle.py::test_only_a_failed_or_cancelled_job_is_retried",
    ),
    _guard(
        "app/losers.py",
        "an expired job ends",
        "if job.status is Status.PENDING and job.expires_at is not None and job.expires_at <= now:",
        "if False:",
        "test_lifecycle.py::test_an_expired_job_ends_failed",
    ),
    _guard(
        "app/losers.py",
        "a job expires at its time and not before",
        " and job.expires_at <= now:",
        ":",
        "test_lifecycle.py::test_a_job_whose_time_to_expire_is_still_to_come_goes_on_waiting",
    ),
    _guard(
        "app/losers.py",
        "what runs under another claim is no suspect of this one",
        "return job.claim == claim.dead and _runs_alone(job.interruptions + 1)",
        "return _runs_alone(job.interruptions + 1)",
        "tests/unit/test_losers.py::test_what_may_not_start_now_or_not_only_alone_is_no_suspect",
    ),
    _guard(
        "app/losers.py",
        "a suspect is set aside when it is due",
        "is_waiting = job.status is Status.PENDING and job.due_at <= now",
        "is_waiting = job.status is Status.PENDING",
        "tests/unit/test_losers.py::test_what_may_not_start_now_or_not_only_alone_is_no_suspect",
    ),
    _guard(
        "app/losers.py",
        "a suspect that nobody has a place for waits a moment",
        "return now + _SUSPECT_PAUSE if _is_suspect(job, claim, now) else job.due_at",
        "return job.due_at",
        "tests/unit/test_losers.py::test_a_suspect_without_a_place_is_offered_again_a_moment_later_and_all_else_at_its_time",
    ),
    _guard(
        "app/losers.py",
        "a suspect that was set aside stays held",
        "lost = [claim for claim in lost if claim.id not in aside]",
        "pass",
        "test_lifecycle.py::test_a_suspect_that_was_set_aside_stays_held",
    ),
    _guard(
        "app/losers.py",
        "a loser lends the entry to who runs the job",
        'verb="lend", argument=job.claim or "")',
        'verb="wait", argument=AT_ITS_PLACE)',
        "test_lifecycle.py::test_an_entry_of_a_job_that_runs_elsewhere_is_lent_to_its_claim",
    ),
    _guard(
        "app/losers.py",
        "a row that the database refuses is put aside alone",
        "except (*REFUSALS, RecursionError) as error:",
        "except RecursionError as error:",
        "test_hostile_redis.py::test_a_row_that_the_database_refuses_quarantines_its_entry_alone",
    ),
    _guard(
        "app/losers.py",
        "a loser that cannot ask for the row spares the winners",
        "except (Unavailable, *OUTAGES) as error:",
        "except ZeroDivisionError as error:",
        "test_lifecycle.py::test_a_loser_that_cannot_ask_for_the_row_spares_the_winners",
    ),
    _guard(
        "app/losers.py",
        "an entry of ours without a row is dropped",
        "elif body is None or body.is_ours:",
        "elif body is None:",
        "test_lifecycle.py::test_an_entry_of_ours_without_a_row_is_dropped",
    ),
)
