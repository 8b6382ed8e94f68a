"""The guards of the status machine and its protocol, each with the test that misses it.

One line a guard: what it guards, where it stands, what the text becomes without it, and who must notice.
"""

from collections.abc import Sequence

from tests.model.mutation import MODEL, ROOT, Mutant

_WRITER = ("app/history/statements.py", "app/history/writer.py")
_LIFECYCLE = "app/lifecycle.py"
_LOSERS = "app/losers.py"
_QUEUE_TEST = "test_queue.py"
_LEASES_TEST = "test_queue_leases.py"
_RINGS_TEST = "test_queue_rings.py"


def _lua(script: str, guard: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(guard=guard, file=f"app/queue/lua/{script}.lua", old=old, new=new, test=_named(test))


def _sql(guard: str, old: str, new: str, test: str = MODEL) -> Mutant:
    return Mutant(guard=guard, file=_where(old, _WRITER), old=old, new=new, test=_named(test))


def _py(file: str, guard: str, old: str, new: str, test: str) -> Mutant:
    return Mutant(guard=guard, file=file, old=old, new=new, test=_named(test))


def _where(text: str, files: Sequence[str]) -> str:
    """Return the file in which a text stands; the last one where it stands in none, which the pass reports."""
    return next((file for file in files if text in (ROOT / file).read_text()), files[-1])


def _named(test: str) -> str:
    return test if "/" in test else f"tests/integration/{test}"


_START = (
    _sql(
        "a start needs its due time",
        "status = 'pending' AND due_at <= :now AND",
        "status = 'pending' AND",
        "test_writer.py::test_a_job_that_is_not_yet_due_does_not_start",
    ),
    _sql(
        "an expired job does not start",
        "(expires_at IS NULL OR expires_at > :now)",
        "true",
        "test_writer.py::test_a_job_that_has_expired_does_not_start",
    ),
    _sql(
        "a start needs a pending row, or its own or a dead claim",
        "claim IN (row_dead, row_claim)",
        "true",
        "test_writer.py::test_a_job_that_runs_under_another_claim_does_not_start",
    ),
    _sql(
        "an ended job never starts",
        "OR (status = 'running' AND claim IN (row_dead, row_claim))",
        "OR claim IN (row_dead, row_claim)",
        "test_writer.py::test_an_ended_job_never_starts_again",
    ),
    _sql(
        "a start sent again counts once",
        "WHEN status = 'running' AND claim = row_claim THEN 0 ELSE 1",
        "WHEN false THEN 0 ELSE 1",
        "test_writer.py::test_a_start_whose_reply_was_lost_wins_again_without_a_new_attempt",
    ),
    _sql(
        "a start takes over a dead claim",
        "claim IN (row_dead, row_claim)",
        "claim = row_claim",
        "test_writer.py::test_a_job_whose_claim_is_dead_starts_again_as_interrupted",
    ),
    _sql(
        "a start counts the attempt",
        "THEN 0 ELSE 1 END,\n    interruptions",
        "THEN 0 ELSE 0 END,\n    interruptions",
        "test_writer.py::test_a_pending_job_that_is_due_starts",
    ),
    _sql(
        "a takeover counts an interruption",
        "claim <> row_claim THEN 1 ELSE 0 END,\n    status",
        "claim <> row_claim THEN 0 ELSE 0 END,\n    status",
        "test_writer.py::test_a_job_whose_claim_is_dead_starts_again_as_interrupted",
    ),
    _sql(
        "a start writes its claim",
        "status = 'running', claim = row_claim, worker_id",
        "status = 'running', claim = COALESCE(claim, row_claim), worker_id",
        "test_writer.py::test_a_job_whose_claim_is_dead_starts_again_as_interrupted",
    ),
    _sql(
        "a suspect does not start in company",
        "0 END\n        NOT BETWEEN :alone_from AND :alone_until",
        "0 END >= 0",
        "test_writer.py::test_a_suspect_that_is_not_started_in_company_was_not_interrupted_yet",
    ),
    _sql(
        "a suspect that is set aside is not noted as interrupted",
        " AND interruptions + 1 NOT BETWEEN :alone_from AND :alone_until\nON CONFLICT",
        "\nON CONFLICT",
        "test_writer.py::test_a_suspect_that_is_not_started_in_company_was_not_interrupted_yet",
    ),
    _sql(
        "only what still ran was interrupted",
        "WHERE status = 'running' AND claim = row_dead",
        "WHERE claim = row_dead",
        "test_writer.py::test_a_job_that_ended_under_a_claim_that_died_later_was_not_interrupted",
    ),
)

_SETTLE = (
    _sql(
        "a settle needs a running row",
        "task_id = row_id AND status = 'running' AND attempts",
        "task_id = row_id AND attempts",
        "test_writer_settles.py::test_a_settle_after_a_cancel_loses",
    ),
    _sql(
        "a settle needs its attempt and claim",
        ' AND attempts = row_attempts AND claim = row_claim"',
        '"',
        "test_writer_settles.py::test_only_the_attempt_and_the_claim_that_run_can_settle",
    ),
    _sql(
        "a settle sent again has won",
        "won = {row[0] for row in self._sql.settled.run(connection, self._endings(settlements)).fetchall()}",
        "won = set()",
        "test_writer_settles.py::test_a_settle_whose_reply_was_lost_counts_as_won_and_changes_nothing",
    ),
    _sql(
        "of an ended job only the settle that ended it has won",
        "AND status = row_status AND attempts = row_attempts",
        "AND attempts = row_attempts",
        "test_writer_settles.py::test_of_an_ended_job_only_the_settle_that_ended_it_counts_as_won",
    ),
    _sql("a conviction counts an interruption", "WHEN row_outcome = 'interrupted' THEN 1", "WHEN false THEN 1"),
    _sql(
        "a release burns no failure",
        "CASE WHEN row_outcome = 'failed' THEN 1",
        "CASE WHEN true THEN 1",
        "test_writer_settles.py::test_a_released_job_burns_no_failure_and_keeps_its_due_time",
    ),
    _sql(
        "a checkpoint needs a running row",
        "jobs.c.status == Status.RUNNING, jobs.c.attempts == job.attempts]",
        "jobs.c.attempts == job.attempts]",
        "test_writer_settles.py::test_a_checkpoint_after_a_cancel_is_not_stored",
    ),
    _sql(
        "a checkpoint needs its claim",
        ".where(*fence, jobs.c.claim == job.claim)",
        ".where(*fence)",
        "test_writer_settles.py::test_a_checkpoint_of_another_claim_is_not_stored",
    ),
)

_CHANGES = (
    _sql(
        "a cancel needs a live row",
        "jobs.c.id == job_id, jobs.c.status.in_(spared), status=Status.CANCELLED",
        "jobs.c.id == job_id, status=Status.CANCELLED",
        "test_writer.py::test_nothing_changes_an_ended_job",
    ),
    _sql(
        "a cancel spares a running row if told to",
        "if include_running else (Status.PENDING,)",
        "if True else (Status.PENDING,)",
        "test_writer.py::test_a_running_job_is_spared_if_so_asked",
    ),
    _sql(
        "a priority changes only while waiting",
        "is_waiting = (jobs.c.id == job_id, jobs.c.status == Status.PENDING)",
        "is_waiting = (jobs.c.id == job_id,)",
        "test_writer.py::test_what_is_for_waiting_jobs_spares_a_running_one",
    ),
    _sql(
        "a tick is submitted once",
        "insert.values(insertable(job)).on_conflict_do_nothing().returning",
        'insert.values(insertable(job) | {"tick_at": None}).on_conflict_do_nothing().returning',
        "test_writer.py::test_a_tick_is_accepted_once_however_many_try",
    ),
    _sql(
        "a schedule that is off submits nothing",
        "== job.schedule, ~schedules.c.is_enabled)",
        "== job.schedule, sa.false())",
        "test_schedules.py::test_a_schedule_that_is_off_submits_nothing_until_it_is_on_again",
    ),
)

_CLAIM = (
    _lua(
        "claim",
        "a claim takes nothing that somebody holds",
        "if redis.call('SET', HOLDER .. id, token, 'NX', 'PX', lease_ms) then",
        "if redis.call('SET', HOLDER .. id, token, 'PX', lease_ms) then",
        f"{_QUEUE_TEST}::test_a_held_job_is_not_claimed_although_arqs_abort_put_it_back",
    ),
    _lua(
        "claim",
        "what is held again can run out again",
        "redis.call('ZADD', LEASES, 'NX', now + math.max(redis.call('PTTL', HOLDER .. id), 1000), id)",
        "local _ = 0",
        f"{_QUEUE_TEST}::test_a_held_job_that_came_back_keeps_a_lease_that_can_run_out",
    ),
    _lua(
        "claim",
        "a held job hides no other",
        "      more = 1  -- it may have hidden another",
        "",
        f"{_QUEUE_TEST}::test_a_held_job_that_came_back_does_not_hide_those_behind_it",
    ),
    _lua(
        "claim",
        "only a lease that ran out is taken",
        "redis.call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT'",
        "redis.call('ZRANGEBYSCORE', LEASES, '-inf', '+inf', 'LIMIT'",
        f"{_LEASES_TEST}::test_a_lease_that_holds_is_not_taken",
    ),
    _lua(
        "claim",
        "a dead claim is told",
        "out[#out + 1] = dead or ''",
        "out[#out + 1] = ''",
        f"{_LEASES_TEST}::test_a_job_whose_lease_ran_out_is_claimed_again_and_its_dead_claim_told",
    ),
    _lua(
        "claim",
        "a paused queue is skipped",
        "for _, name in ipairs(redis.call('SMEMBERS', PAUSED)) do served[name] = nil end",
        "",
        f"{_QUEUE_TEST}::test_a_paused_queue_is_skipped",
    ),
    _lua(
        "claim",
        "a claim brings never more than asked",
        "local looked_at = math.min(#due, want)",
        "local looked_at = #due",
        f"{_QUEUE_TEST}::test_a_claim_brings_never_more_than_asked",
    ),
    _lua(
        "claim",
        "a full claim rings on",
        "for _, queue_key in ipairs(keys) do ring_bell(queue_name(queue_key)) end",
        "",
        f"{_RINGS_TEST}::test_a_full_claim_rings_on",
    ),
)

_LEASES = (
    _lua(
        "renew",
        "a renewal does not take what another holds",
        "if (holder and holder ~= token) or (claimed and claimed ~= token) then",
        "if false then",
        f"{_LEASES_TEST}::test_a_renewal_reports_only_what_another_claim_holds_as_lost",
    ),
    _lua(
        "renew",
        "a renewal does not take a claim whose lease ran out",
        "or (claimed and claimed ~= token) then",
        "then",
        f"{_LEASES_TEST}::test_a_renewal_does_not_take_a_claim_whose_own_lease_ran_out",
    ),
    _lua(
        "renew",
        "what was let go stays let go",
        "elseif holder or claimed or not is_let_go(id, queue_key) then",
        "elseif true then",
        f"{_LEASES_TEST}::test_a_late_renewal_leaves_alone_what_was_let_go",
    ),
    _lua(
        "renew",
        "a renewal puts back what Redis forgot",
        "    if score < RUNNING_OFFSET then\n      place",
        "    if false then\n      place",
        f"{_LEASES_TEST}::test_a_renewal_puts_a_job_that_redis_forgot_back_as_running",
    ),
    _lua(
        "common",
        "after a silence every lease gets its grace",
        "> math.min(5000, lease_ms * 0.6) then give_grace(now, lease_ms) end",
        "> math.min(5000, lease_ms * 0.6) then local _ = 0 end",
        "test_leases.py::test_a_jump_of_redis_time_gives_every_lease_one_period_of_grace",
    ),
    _lua(
        "renew",
        "a renewal gives the grace before it hides the silence",
        "watch_clock(now, lease_ms)",
        "redis.call('SET', CLOCK, exact(now))",
        "test_leases.py::test_a_renewal_gives_the_grace_before_it_hides_the_silence",
    ),
    _lua(
        "common",
        "a holder of the wrong type ends no renewal",
        "redis.pcall('GET', HOLDER .. id)",
        "redis.call('GET', HOLDER .. id)",
        "test_hostile_redis.py::test_a_holder_of_the_wrong_type_does_not_end_the_renewals",
    ),
    _py(
        "workers/lease.py",
        "a worker that holds nothing tells Redis that it lives",
        "                refused = self._renew(held)\n",
        "                refused = self._renew(held) if held else set()\n",
        "test_leases.py::test_a_worker_that_holds_nothing_tells_redis_that_it_lives",
    ),
    _py(
        "workers/lease.py",
        "a lease is good from when its renewal was sent",
        "good_until=sent_at + self._lease_s)",
        "good_until=monotonic() + self._lease_s)",
        "test_leases.py::test_a_lease_is_good_from_when_its_renewal_was_sent",
    ),
    _py(
        "workers/lease.py",
        "claims of one job are held apart",
        "self._held.pop((job_id, token), None)",
        "[self._held.pop(key) for key in list(self._held) if key[0] == job_id]",
        "test_leases.py::test_two_claims_of_one_job_are_held_and_dropped_apart",
    ),
    _py(
        "workers/doubt.py",
        "a doubtful job goes on while its row is ours",
        "self._stop_claims(lost, StopReason.LOST)",
        "self._stop_claims(claims, StopReason.LOST)",
        "test_leases.py::test_a_job_that_redis_calls_lost_goes_on_while_its_row_calls_it_ours",
    ),
    _py(
        "workers/doubt.py",
        "a job whose row another has is stopped",
        "self._stop_claims(lost, StopReason.LOST)",
        "pass",
        "test_leases.py::test_a_job_whose_row_another_claim_has_is_stopped_at_the_next_renewal",
    ),
    _py(
        "workers/doubt.py",
        "what runs here is not run again",
        "        if not mine:\n",
        "        if True:\n",
        "test_leases.py::test_a_job_that_runs_here_is_not_run_again_when_redis_offers_it",
    ),
)

_LETTING_GO = (
    _lua(
        "let_go",
        "only the holder lets go",
        "  if claimed ~= token then",
        "  if false then",
        f"{_LEASES_TEST}::test_only_the_holder_lets_go",
    ),
    _lua(
        "let_go",
        "a job let go of twice counts once",
        "    claims[id] = nil  -- a second item for this job has lost",
        "",
        f"{_LEASES_TEST}::test_letting_go_of_the_same_job_twice_in_one_call_counts_once",
    ),
    _lua(
        "withdraw",
        "a held job is not withdrawn",
        "if redis.call('EXISTS', HOLDER .. id) == 1 then",
        "if false then",
        f"{_RINGS_TEST}::test_a_held_job_is_not_withdrawn",
    ),
    _lua(
        "move",
        "a held job is not moved",
        "if score and score < RUNNING_OFFSET and",
        "if score and",
        f"{_RINGS_TEST}::test_a_held_job_is_not_moved",
    ),
    _lua(
        "ring",
        "a repeated ring leaves a job where it is",
        "redis.call('ZADD', queue_key, 'NX', exact(score), id) == 1",
        "redis.call('ZADD', queue_key, exact(score), id) >= 0",
        f"{_RINGS_TEST}::test_a_ring_while_the_job_runs_is_harmless",
    ),
    _lua(
        "ring",
        "a running entry gets a lease that can run out",
        "redis.call('ZADD', LEASES, now + lease_ms, id)  -- else",
        "local _ = 0  -- else",
        f"{_RINGS_TEST}::test_a_running_job_without_a_lease_gets_one_from_a_ring",
    ),
    _lua(
        "ring",
        "each page needs the nonce",
        "if walk ~= '' and redis.call('HGET', EPOCH, 'walk') ~= walk then return -1 end",
        "",
        "test_sweep.py::test_a_page_of_a_walk_that_is_not_the_current_one_is_not_rung",
    ),
    _lua(
        "epoch_end",
        "a walk that is over does not come to its end",
        "if redis.call('HGET', EPOCH, 'walk') ~= ARGV[1] then return 0 end",
        "",
        MODEL,
    ),
    _lua(
        "epoch_begin",
        "a rebuild gives every lease one fresh period",
        "give_grace(now, tonumber(ARGV[1]))",
        "",
        "test_sweep.py::test_a_rebuild_gives_every_lease_one_fresh_period",
    ),
)

_SUSPECTS = (
    _py(
        _LIFECYCLE,
        "a start that fails gives its claims back",
        "            await self.give_back(claims.claims)\n            raise",
        "            raise",
        "test_lifecycle.py::test_a_start_while_the_database_is_out_gives_everything_back",
    ),
    _py(
        "workers/suspects.py",
        "no more suspects are held than the line takes",
        "if self._is_leaving or len(self._line) >= _LINE:",
        "if self._is_leaving or len(self._line) > 99:",
        "test_suspects.py::test_no_more_suspects_are_held_than_the_line_takes",
    ),
    _py(
        "workers/verdict.py",
        "a verdict needs the claim that ran",
        " or row.claim != claim.token:",
        ":",
        "test_suspects.py::test_a_verdict_on_a_claim_that_is_over_spares_who_runs_the_job_now",
    ),
    _py(
        "workers/attempt.py",
        "a job that lost its leases time and again ends",
        "if self.job.interruptions >= MAX_INTERRUPTIONS:",
        "if False:",
        "test_worker.py::test_a_job_that_lost_five_leases_is_not_run_again",
    ),
    _py(
        "workers/suspects.py",
        "dying alone convicts",
        "if exit_code and not self._is_leaving:",
        "if False:",
        "test_suspects.py::test_a_suspect_that_kills_its_process_ends_failed_and_spares_the_rest",
    ),
    _py(
        "workers/sweep.py",
        "a lock that never ends is given an end",
        "if await redis.ttl(keys.SWEEPER) == -1:",
        "if False:",
        "test_hostile_redis.py::test_a_sweeping_lock_that_never_ends_is_given_an_end",
    ),
    _py(
        "workers/cron.py",
        "what passed while a schedule was off was not missed",
        "since = last if switch is None else max(last, switch.changed_at)",
        "since = last",
        "test_schedules.py",
    ),
    _py(
        "app/queue/ticks.py",
        "a time that does not exist is made good at the first moment after it",
        "tick = _change(zone, tick - _LONGEST_GAP, tick)",
        "pass",
        "tests/unit/test_ticks_against_cronsim.py",
    ),
)

GUARDS = (*_START, *_SETTLE, *_CHANGES, *_CLAIM, *_LEASES, *_LETTING_GO, *_SUSPECTS)
