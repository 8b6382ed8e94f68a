"""The guards of the worker: how it stops, how it holds jobs to their limits, and what it does with their processes.

As in :mod:`tests.model.guards`: what each guards, where it stands, what the text becomes without it, who notices.
"""

from tests.model.mutation import MODEL, guarded

_WORKER = "workers/worker.py"
_ALONE = "workers/alone.py"
_SUSPECTS = "workers/suspects.py"
_ATTEMPT = "workers/attempt.py"
_CONTEXT = "workers/context.py"
_INTAKE = "workers/intake.py"
_LIMITS = "workers/limits.py"
_POOL = "workers/pool.py"
_PROCESS = "workers/process.py"

_TEST_WORKER = "test_worker.py"
_TEST_CLAIMS = "test_worker_claims.py"
_TEST_LIMITS = "test_limits.py"
_TEST_POOL = "tests/acceptance/test_service.py"
_TEST_SUSPECTS = "test_suspects.py"
_TEST_PROCESSES = "test_processes_of_jobs.py"


_STOPPING = (
    guarded(
        _WORKER,
        "a stopping worker stops what outlasts the grace period",
        "self._stop_attempts(list(self._attempts), StopReason.SHUTDOWN)",
        "pass",
        f"{_TEST_CLAIMS}::test_a_stopping_worker_gives_jobs_back_without_burning_a_retry",
    ),
    guarded(
        _WORKER,
        "what starts after the stop is stopped too",
        "                attempt.stop(StopReason.SHUTDOWN)\n",
        "                pass\n",
        f"{_TEST_CLAIMS}::test_a_job_whose_start_outlasts_the_grace_period_is_released_without_being_run",
    ),
    guarded(
        _ATTEMPT,
        "what was stopped before its work began does not begin it",
        "        if self.stop_reason is not None:\n            return self._verdict(Released())\n",
        "",
        f"{_TEST_CLAIMS}::test_a_job_whose_start_outlasts_the_grace_period_is_released_without_being_run",
    ),
    guarded(
        _WORKER,
        "an attempt that is stopped before its first step comes to its end",
        "            self._running.keep(attempt.run())\n",
        "            attempt.task = self._running.keep(attempt.run())\n",
        f"{_TEST_CLAIMS}::test_a_job_that_is_stopped_before_its_first_step_is_released",
    ),
    guarded(
        _ATTEMPT,
        "what was stopped with its worker is released and burns nothing",
        "return outcome if isinstance(outcome, Completed) else Released()",
        "return outcome",
        f"{_TEST_CLAIMS}::test_a_stopping_worker_gives_jobs_back_without_burning_a_retry",
    ),
    guarded(
        _ATTEMPT,
        "what completes although it was stopped keeps its result",
        "return outcome if isinstance(outcome, Completed) else Released()",
        "return Released()",
        "test_leases.py::test_a_cut_off_job_that_completes_all_the_same_keeps_its_result",
    ),
    guarded(
        _WORKER,
        "a stopping worker lets jobs finish for the grace period",
        "await self._running.until_idle(self._house.settings.worker_grace_s)",
        "await asyncio.sleep(0)",
        f"{_TEST_CLAIMS}::test_a_stopping_worker_lets_jobs_finish_first",
    ),
    guarded(
        _INTAKE,
        "what was claimed while the worker was told to stop is given back unstarted",
        "if self.is_closed or ",
        "if ",
        f"{_TEST_CLAIMS}::test_what_was_claimed_while_the_worker_was_told_to_stop_is_given_back_unstarted",
    ),
    guarded(
        _WORKER,
        "what waits to start is held here, and is not started under another claim",
        "return self._intake.pending.get(job_id) if attempt is None else attempt.job.claim",
        "return None if attempt is None else attempt.job.claim",
        f"{_TEST_CLAIMS}::test_a_job_that_redis_offers_again_while_it_waits_to_start_runs_once",
    ),
    guarded(
        _WORKER,
        "a second signal leaves at once",
        "if source in self._told_by:",
        "if False:",
        "tests/acceptance/test_service.py::test_a_second_sigterm_leaves_at_once",
    ),
    guarded(
        _WORKER,
        "a stop that comes from outside and from the parent counts once",
        "if source in self._told_by:",
        "if self._told_by:",
        f"{_TEST_POOL}::test_a_stop_that_reaches_a_pool_and_its_processes_lets_a_running_task_finish",
    ),
    guarded(
        _POOL,
        "a parent passes a stop on by a signal of its own",
        "child.send_signal(PASSED_ON)",
        "child.send_signal(signal.SIGTERM)",
        f"{_TEST_POOL}::test_a_stop_that_reaches_a_pool_and_its_processes_lets_a_running_task_finish",
    ),
    guarded(
        _POOL,
        "what refuses to work is not started again",
        "            self._signals = max(self._signals, 1)\n            return child",
        "            pass",
        "tests/acceptance/test_refusals.py::test_a_redis_of_another_installation_is_refused_in_a_line",
    ),
    guarded(
        _POOL,
        "a parent passes every signal on",
        "if self._passed_on[child.pid] < self._signals and",
        "if self._signals and not self._passed_on[child.pid] and",
        f"{_TEST_POOL}::test_a_second_signal_to_a_pool_has_its_processes_leave_at_once",
    ),
    guarded(
        _WORKER,
        "a drain counts no grace period",
        "while self._is_draining and self._running and not self._is_told_to_stop.is_set():",
        "while False:",
        f"{_TEST_LIMITS}::test_a_worker_drains_when_it_is_told_to_and_others_do_not",
    ),
)

_ALONE_GUARDS = (
    guarded(
        _ALONE,
        "a lone worker runs one job at a time",
        "if self._handed_over and not self._attempts:",
        "if self._handed_over:",
        f"{_TEST_SUSPECTS}::test_a_lone_worker_runs_one_job_at_a_time_whatever_it_is_handed",
    ),
    guarded(
        _ALONE,
        "no stubborn work stays beside the next suspect",
        "max_stubborn = 0",
        "max_stubborn = 3",
        f"{_TEST_SUSPECTS}::test_stubborn_work_does_not_stay_beside_the_next_suspect",
    ),
    guarded(
        _ALONE,
        "a lone worker leaves with the worker that spoke to it",
        '            log.info("worker_hung_up")\n        self.stop()',
        '            log.info("worker_hung_up")\n        await asyncio.Event().wait()',
        f"{_TEST_SUSPECTS}::test_a_suspect_whose_worker_is_killed_is_released_and_not_convicted",
    ),
    guarded(
        _ALONE,
        "a lone worker renews the lease of what it runs",
        "        self._keeper.hold(claim.id, claim.queue_key, claim.token, asked_at=asked_at)\n",
        "",
        f"{_TEST_SUSPECTS}::test_a_lone_worker_renews_the_lease_of_what_it_runs",
    ),
    guarded(
        _ALONE,
        "an outage when a suspect starts does not end its process",
        "except (Unavailable, *OUTAGES) as error:",
        "except ZeroDivisionError as error:",
        f"{_TEST_SUSPECTS}::test_an_outage_when_a_suspect_starts_leaves_it_to_whoever_comes_next",
    ),
    guarded(
        _ALONE,
        "a suspect that could not be started is renewed no more, and answered for",
        "            self._keeper.drop(claim.id, claim.token)\n            self._answer(claim.id)\n",
        "            pass\n",
        f"{_TEST_SUSPECTS}::test_an_outage_when_a_suspect_starts_leaves_it_to_whoever_comes_next",
    ),
    guarded(
        _SUSPECTS,
        "suspects that wait for long are offered to other workers",
        "            group.create_task(self._put_off())\n",
        "",
        f"{_TEST_SUSPECTS}::test_a_suspect_that_waits_for_long_is_offered_to_other_workers",
    ),
    guarded(
        _SUSPECTS,
        "a stopping worker gives back the suspects that wait",
        "        await self._give_back(waited_s=0)\n",
        "",
        f"{_TEST_SUSPECTS}::test_a_stopping_worker_gives_back_the_suspects_that_wait",
    ),
    guarded(
        _SUSPECTS,
        "a machine without room for another process costs no worker",
        "            except OSError as error:  # the machine",
        "            except ZeroDivisionError as error:  # the machine",
        f"{_TEST_SUSPECTS}::test_a_machine_without_room_for_a_process_puts_its_suspects_off",
    ),
    guarded(
        _SUSPECTS,
        "a suspect that found no process is renewed no more",
        "reason=str(error))\n                self._drop(claim)\n",
        "reason=str(error))\n",
        f"{_TEST_SUSPECTS}::test_a_machine_without_room_for_a_process_puts_its_suspects_off",
    ),
    guarded(
        _SUSPECTS,
        "suspects are not put off while their process starts",
        "            if not self._starting:\n",
        "            if True:\n",
        f"{_TEST_SUSPECTS}::test_suspects_are_not_put_off_while_their_process_starts",
    ),
    guarded(
        _SUSPECTS,
        "a suspect whose process still starts is given back when its worker stops",
        "                await self._lifecycle.give_back([first])\n",
        "",
        f"{_TEST_SUSPECTS}::test_a_stopping_worker_gives_a_suspect_back_whose_process_was_still_starting",
    ),
    guarded(
        _WORKER,
        "a stopping worker tells the processes of its suspects to stop",
        "        self._suspects.hang_up()\n",
        "",
        f"{_TEST_SUSPECTS}::test_a_stopping_worker_takes_its_suspects_along_without_burning_anything",
    ),
    guarded(
        _INTAKE,
        "a worker with other jobs starts no suspect itself",
        "take_aside=self._suspects.take",
        "take_aside=None",
        f"{_TEST_SUSPECTS}::test_a_suspect_runs_in_a_process_that_holds_nothing_else",
    ),
)

_LIMIT_GUARDS = (
    guarded(
        _ATTEMPT,
        "whatever a job raises ends in its row",
        "except BaseException as error:  # whatever a job does",
        "except Exception as error:  # whatever a job does",
        f"{_TEST_LIMITS}::test_whatever_a_job_raises_ends_in_its_row_and_its_neighbours_complete",
    ),
    guarded(
        _CONTEXT,
        "the soft limit is told",
        "if self._soft_limit_at is not None and time.monotonic() >= self._soft_limit_at:\n"
        "            self._soft_limit_at = None\n            raise SoftTimeLimitExceeded\n",
        "if False:\n            pass\n",
        f"{_TEST_WORKER}::test_the_soft_limit_may_be_caught_and_the_hard_limit_ends_the_job",
    ),
    guarded(
        _CONTEXT,
        "the soft limit is told once",
        "            self._soft_limit_at = None\n            raise SoftTimeLimitExceeded\n",
        "            raise SoftTimeLimitExceeded\n",
        f"{_TEST_WORKER}::test_the_soft_limit_may_be_caught_and_the_hard_limit_ends_the_job",
    ),
    guarded(
        _LIMITS,
        "the hard limit stops a job",
        "if time.monotonic() >= attempt.hard_limit_at:",
        "if False:",
        f"{_TEST_WORKER}::test_the_soft_limit_may_be_caught_and_the_hard_limit_ends_the_job",
    ),
    guarded(
        _ATTEMPT,
        "a job that the hard limit stopped ends as a timeout",
        "return timed_out(self.job_type.limits.hard_s)",
        "return outcome",
        f"{_TEST_LIMITS}::test_a_timeout_may_be_tried_again_and_ends_failed_as_one",
    ),
    guarded(
        _LIMITS,
        "work that ignores its end is abandoned",
        "if attempt.is_stubborn and attempt.task is not None:",
        "if False:",
        f"{_TEST_LIMITS}::test_a_job_that_ignores_a_cancel_frees_its_slot_within_two_seconds",
    ),
    guarded(
        _ATTEMPT,
        "abandoned work that ends at last writes nothing",
        "        if self._is_abandoned:\n            return\n",
        "",
        f"{_TEST_LIMITS}::test_a_job_that_ignores_its_hard_limit_ends_within_two_seconds_of_it",
    ),
    guarded(
        _CONTEXT,
        "what abandoned work reports is ignored",
        "        self._publish = _tell_nobody\n",
        "",
        f"{_TEST_LIMITS}::test_what_stubborn_work_reports_later_is_ignored",
    ),
    guarded(
        _LIMITS,
        "a worker with too much abandoned work is replaced",
        "return self.stubborn > self._at_most",
        "return False",
        f"{_TEST_LIMITS}::test_a_worker_with_more_than_three_stubborn_jobs_drains",
    ),
    guarded(
        _LIMITS,
        "threads that would not end count as abandoned work",
        "len(self._stubborn) + self._room.strays",
        "len(self._stubborn)",
        f"{_TEST_LIMITS}::test_threads_that_never_return_are_counted_and_keep_nobody_waiting",
    ),
    guarded(
        "workers/thread.py",
        "a stop reaches a thread",
        "ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), stopped)",
        "pass",
        f"{_TEST_LIMITS}::test_the_hard_limit_reaches_a_thread",
    ),
    guarded(
        "workers/thread.py",
        "a stop that Python dropped is repeated",
        "_TRIES = 2",
        "_TRIES = 1",
        f"{_TEST_LIMITS}::test_a_stop_that_lands_where_python_drops_it_is_repeated",
    ),
    guarded(
        "workers/watchdog.py",
        "a loop that hangs ends its process",
        "exit=True",
        "exit=False",
        f"{_TEST_SUSPECTS}::test_a_suspect_that_kills_its_process_ends_failed_and_spares_the_rest[hang]",
    ),
    guarded(
        "workers/outcome.py",
        "a result that is too large is not stored",
        "if len(text) > MAX_RESULT_BYTES:",
        "if False:",
        f"{_TEST_LIMITS}::test_a_result_that_is_no_json_or_too_large_is_invalid_at_once",
    ),
    guarded(
        "workers/outcome.py",
        "what would fail again is not tried again",
        "asked is not None or not isinstance(error, _POINTLESS)",
        "True",
        f"{_TEST_LIMITS}::test_what_would_fail_again_is_not_tried_again",
    ),
)

_CHECKPOINTS = (
    guarded(
        _CONTEXT,
        "a job whose checkpoint cannot be read waits, and does not fail",
        "                await asyncio.sleep(_RESTORE_PAUSE_S)\n",
        "                raise\n",
        "test_checkpoints.py::test_an_attempt_that_cannot_read_its_checkpoint_waits_for_the_database",
    ),
    guarded(
        _CONTEXT,
        "a job never begins without its checkpoint for want of a database",
        "                await asyncio.sleep(_RESTORE_PAUSE_S)\n",
        "                return\n",
        "test_checkpoints.py::test_an_attempt_that_cannot_read_its_checkpoint_waits_for_the_database",
    ),
    guarded(
        _CONTEXT,
        "a database that is away costs a checkpoint alone",
        'log.warning("checkpoint_not_stored", reason=str(error))\n            return\n',
        'log.warning("checkpoint_not_stored", reason=str(error))\n            raise\n',
        "test_checkpoints.py::test_a_database_that_is_away_costs_the_checkpoint_alone",
    ),
    guarded(
        _CONTEXT,
        "a checkpoint that was not stored is not thought to be",
        'log.warning("checkpoint_not_stored", reason=str(error))\n            return\n',
        'log.warning("checkpoint_not_stored", reason=str(error))\n            is_mine = True\n',
        MODEL,
    ),
    guarded(
        _CONTEXT,
        "an attempt whose checkpoint is refused stops",
        "        if not is_mine:\n            raise AttemptLost\n",
        "",
        "test_checkpoints.py::test_a_stale_attempt_can_write_no_checkpoint",
    ),
)

_PROCESSES = (
    guarded(
        _PROCESS,
        "a child dies with its worker",
        "    _die_with_worker()\n",
        "",
        f"{_TEST_PROCESSES}::test_a_killed_worker_leaves_no_child_and_another_goes_on_from_the_checkpoint",
    ),
    guarded(
        _CONTEXT,
        "leaving the call ends the child",
        "            await child.stop()\n",
        "            pass\n",
        f"{_TEST_PROCESSES}::test_a_cancel_ends_the_child_within_two_seconds",
    ),
    guarded(
        _PROCESS,
        "a child above its memory is killed",
        "if self._is_too_large():",
        "if False:",
        f"{_TEST_PROCESSES}::test_a_child_that_takes_too_much_memory_fails_its_job_alone",
    ),
    guarded(
        _PROCESS,
        "what a child started ends with it",
        "os.killpg(pid, signal.SIGKILL)",
        "pass",
        f"{_TEST_PROCESSES}::test_what_a_child_started_ends_with_it",
    ),
    guarded(
        _PROCESS,
        "what is too large for the worker is not received",
        "self._channel.recv_bytes(_MAX_WORD_MB * _MB)",
        "self._channel.recv_bytes()",
        f"{_TEST_PROCESSES}::test_what_is_too_large_for_the_worker_is_not_even_received",
    ),
    guarded(
        _PROCESS,
        "a child goes before its worker when memory is short",
        'Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)',
        "pass",
        f"{_TEST_PROCESSES}::test_a_child_goes_before_its_worker_when_the_machine_has_no_memory_left",
    ),
    guarded(
        _PROCESS,
        "a child does not hear what the terminal sends its worker",
        "    os.setpgrp()  #",
        "    #",
        f"{_TEST_PROCESSES}::test_a_child_is_a_nice_process_of_its_own",
    ),
    guarded(
        _PROCESS,
        "the soft limit reaches a child",
        "            raise SoftTimeLimitExceeded\n",
        "",
        f"{_TEST_PROCESSES}::test_the_soft_limit_reaches_the_child_which_may_return_what_it_has",
    ),
    guarded(
        _CONTEXT,
        "no more children run than there are places",
        "await self._room.places.acquire()",
        "self._room.places._value -= 1",
        f"{_TEST_PROCESSES}::test_no_more_children_run_at_a_time_than_a_worker_has_places_for",
    ),
    guarded(
        _CONTEXT,
        "the place of a child comes back",
        "            self._room.places.release()\n",
        "            pass\n",
        f"{_TEST_PROCESSES}::test_the_place_of_a_killed_child_comes_back",
    ),
    guarded(
        _CONTEXT,
        "the time limits count while a job waits for a place",
        "async with asyncio.timeout(wait_s):",
        "async with asyncio.timeout(None):",
        f"{_TEST_PROCESSES}::test_the_time_limits_count_while_a_job_waits_for_a_place",
    ),
)

_STORES = (
    guarded(
        "app/sqlite.py",
        "a wait for SQLite's lock that was cancelled keeps the turn until it is over",
        "waiting.add_done_callback(lambda _: self._give_back())\n",
        "self._turn.release(), waiting.add_done_callback(lambda _: fcntl.flock(self._fd, fcntl.LOCK_UN))\n",
        "test_cancelled_writes.py::test_a_cancelled_wait_does_not_give_back_what_the_next_one_holds",
    ),
    guarded(
        "app/sqlite.py",
        "a connection to SQLite is told to end once, so that its event loop can close",
        "return super().stop() if self._running else None",
        "return super().stop()",
        "test_cancelled_writes.py::test_an_event_loop_closes_after_a_reader_was_cancelled_twice",
    ),
    guarded(
        "app/sqlite.py",
        "a thread of SQLite's has nothing to complain of when its event loop has closed",
        "    with suppress(RuntimeError):\n        run()",
        "    run()",
        "test_cancelled_writes.py::test_an_event_loop_closes_after_a_reader_was_cancelled_twice",
    ),
    guarded(
        "app/api/leaving.py",
        "a client of an API process that leaves is sent elsewhere with its answer",
        "if request.app[LEAVING].is_set() and response.status != 101:",
        "if False:",
        "test_api_leaving.py::test_what_comes_on_an_open_connection_is_answered_and_sent_elsewhere",
    ),
    guarded(
        "app/metrics.py",
        "what was put into quarantine is told",
        "quarantined.add_metric([reason], count)",
        "pass",
        "test_api_operations.py::test_metrics_count_what_ended_and_how_long_it_took",
    ),
)

_SWEEP_GUARDS = (
    guarded(
        "app/lifecycle.py",
        "nothing is taken out of Redis while the database cannot be asked",
        "        live = await self._reader.live_among(ids)\n",
        "        try:\n            live = await self._reader.live_among(ids)\n"
        "        except Unavailable:\n            live = set()\n",
        MODEL,
    ),
    guarded(
        "workers/sweep.py",
        "a walk that could not read a page has not come to its end",
        "        return await self._house.reader.live_page(before=before, limit=_PAGE)\n",
        "        try:\n            return await self._house.reader.live_page(before=before, limit=_PAGE)\n"
        "        except Exception:\n            return []\n",
        MODEL,
    ),
)

WORKER_GUARDS = (*_STORES, *_SWEEP_GUARDS, *_STOPPING, *_ALONE_GUARDS, *_LIMIT_GUARDS, *_CHECKPOINTS, *_PROCESSES)
