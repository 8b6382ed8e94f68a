"""The guards of the HTTP surface, each with the test that misses it: who may what, how much, and once."""

from tests.model.mutation import guarded

_RATE = "test_api_rate_limit.py"
_RESUME = "test_api_stream_resume.py"
_LIST = "test_api_stream_list.py"
_ENDS = "test_api_stream_ends.py"


_TENANCY = (
    guarded(
        "app/api/auth.py",
        "a caller sees their own tasks only",
        "return self.is_admin or owner == self.user_id",
        "return True",
        "test_api_tasks.py::test_a_foreign_task_is_not_found",
    ),
    guarded(
        "app/api/filters.py",
        "a list holds the caller's own tasks only",
        "owner=None if caller.is_admin else caller.user_id",
        "owner=None",
        "test_api_tasks.py::test_lists_and_counts_are_the_callers_own",
    ),
    guarded(
        "app/api/endpoint.py",
        "a route for administrators is closed to others",
        "if access is Access.ADMIN and not caller.is_admin:",
        "if False:",
        "test_api_matrix.py",
    ),
    guarded(
        "app/api/endpoint.py",
        "a credential needs the scope of the route",
        "if not caller.may(scope):",
        "if False:",
        "test_api_credentials.py::test_a_key_allows_what_its_scopes_say_and_the_refusal_names_the_one_that_is_missing",
    ),
    guarded(
        "app/api/submissions.py",
        "to act for another user needs a scope",
        "if not caller.may_act_for(user):",
        "if False:",
        "tests/unit/test_api_submissions.py::test_a_user_cannot_act_for_another",
    ),
    guarded(
        "app/api/submissions.py",
        "a kind for administrators is refused to others",
        "if job_type.is_admin_only and not caller.is_admin:",
        "if False:",
        "test_api_problems.py",
    ),
    guarded(
        "app/api/stories.py",
        "a list stream tells of the caller's own tasks only",
        "self._owner = None if caller.is_admin else caller.user_id",
        "self._owner = None",
        f"{_LIST}::test_everybody_follows_their_own_and_the_administrator_all",
    ),
    guarded(
        "app/api/stories.py",
        "a resume tells of the caller's own tasks only",
        "if told.is_new(found.event) and _concerns(found.event, follower.interest)",
        "if told.is_new(found.event)",
        f"{_LIST}::test_a_resume_shows_nobody_what_is_not_theirs",
    ),
)

_CREDENTIALS = (
    guarded(
        "app/credentials/keys.py",
        "a key is checked by its secret, not by its id alone",
        "return hmac.compare_digest(self.digest(token), key.digest)",
        "return True",
        "tests/unit/test_api_auth.py::test_a_key_is_its_rows_only_with_the_servers_secret_and_to_the_last_letter",
    ),
    guarded(
        "app/api/auth.py",
        "a key that has ended opens nothing",
        "or not _is_good(held):",
        "or False:",
        "test_api_credentials.py::test_a_key_ends_when_its_time_has_come_an_open_socket_with_it",
    ),
    guarded(
        "app/api/stream.py",
        "an open stream ends with its credential",
        "elif not losing.cancelled():",
        "elif False:",
        f"{_ENDS}::test_server_sent_events_end_when_their_key_is_revoked",
    ),
    guarded(
        "app/credentials/tokens.py",
        "a token is good by its signature",
        'options={"require": _CLAIMS},',
        'options={"require": _CLAIMS, "verify_signature": False},',
        "test_api_logins.py::test_a_token_that_was_tampered_with_opens_nothing",
    ),
    guarded(
        "app/api/browsers.py",
        "a session changes something only with its token",
        'if not hmac.compare_digest(request.headers.get(CSRF_HEADER, "").encode(), csrf_token(session).encode()):',
        "if False:",
        "test_api_logins.py::test_a_browser_changes_something_only_with_the_token_of_its_session",
    ),
    guarded(
        "app/api/browsers.py",
        "a session changes something only from our own pages",
        "        check_own_origin(request)\n        if not hmac",
        "        if not hmac",
        "test_api_logins.py::test_a_browser_changes_something_only_with_the_token_of_its_session",
    ),
    guarded(
        "app/api/stream.py",
        "a page of another origin opens no stream with a cookie",
        "        self._check_page()\n        accepted",
        "        accepted",
        f"{_ENDS}::test_a_page_of_another_origin_opens_no_server_sent_events",
    ),
    guarded(
        "app/api/stream.py",
        "a page of another origin opens no websocket",
        "            self._check_page()\n            return",
        "            return",
        "test_api_logins.py::test_a_websocket_is_opened_by_pages_that_may_and_with_a_cookie_by_our_own_alone",
    ),
    guarded(
        "app/api/sessions.py",
        "too many wrong passwords hold up the next try",
        "await logins.throttle.take(form.username, address)",
        "pass",
        "test_api_logins.py::test_after_some_failures_a_name_waits_from_this_address_and_others_do_not",
    ),
)

_LIMITS = (
    guarded(
        "app/queue/lua/rate.lua",
        "the rate of a caller is bounded",
        "answers[#answers + 1] = math.max(0, math.ceil(wait))",
        "answers[#answers + 1] = 0",
        f"{_RATE}::test_who_asks_too_often_is_told_when_to_ask_again",
    ),
    guarded(
        "app/queue/lua/rate.lua",
        "what is refused costs nothing",
        "if wait <= 0 then",
        "if true then",
        f"{_RATE}::test_what_is_refused_costs_nothing",
    ),
    guarded(
        "app/queue/lua/rate.lua",
        "garbage in a rate keeps nobody out",
        "or at > now + interval * (burst + MAX_COST) then",
        "then",
        f"{_RATE}::test_garbage_in_redis_keeps_nobody_out",
    ),
    guarded(
        "app/api/throttle.py",
        "without Redis the rate is kept here",
        "return [self._own.take(who, cost) for who, cost in asked]",
        "return [Taken(wait_s=0.0, paid_in_s=0.0) for _ in asked]",
        f"{_RATE}::test_while_redis_is_out_a_process_grants_the_rate_by_itself",
    ),
    guarded(
        "app/api/intake.py",
        "a batch costs as much as its tasks",
        "await take_units(call, cost)",
        "pass",
        f"{_RATE}::test_a_batch_beyond_the_rate_is_refused_before_anything_is_accepted",
    ),
    guarded(
        "app/api/quotas.py",
        "what waits is bounded for each user",
        "if waiting + self._coming[owner] + count > self._most:",
        "if False:",
        "test_api_quotas.py::test_what_exceeds_the_quota_is_refused_by_name_until_something_has_started",
    ),
    guarded(
        "app/api/quotas.py",
        "what is about to be accepted counts as waiting",
        "waiting + self._coming[owner] + count",
        "waiting + count",
        "test_api_quotas.py::test_submits_that_come_together_are_counted_for_together_and_none_slips_past",
    ),
    guarded(
        "app/api/reading.py",
        "a body without a length is bounded while it is read",
        "                if size > limit:\n                    raise _too_large(limit)",
        "                pass",
        "test_api_limits.py::test_every_route_that_takes_a_body_refuses_one_too_long_declared_or_not",
    ),
    guarded(
        "app/api/links.py",
        "a caller follows no more than so many streams",
        ">= self._limit:",
        ">= 10**9:",
        f"{_ENDS}::test_who_follows_too_much_is_refused_one_more_by_either_way",
    ),
)

_ONCE = (
    guarded(
        "app/api/idempotency.py",
        "a key is for one request",
        "if receipt.fingerprint != fingerprint:",
        "if False:",
        "test_api_idempotency.py::test_another_request_under_the_same_key_is_refused",
    ),
    guarded(
        "app/history/receipts.py",
        "a key is taken in the transaction of its rows",
        "if receipt is not None and not _claim(connection, receipt):",
        "if receipt is not None and (_claim(connection, receipt), False)[1]:",
        "test_writer.py::test_a_request_that_comes_again_writes_nothing",
    ),
    guarded(
        "app/api/idempotency.py",
        "a key is the caller's own",
        "return await read_receipt(call.installation.database, call.caller.user_id, key, now=utc_now())",
        'return await read_receipt(call.installation.database, "ada", key, now=utc_now())',
        "test_api_idempotency.py::test_keys_are_the_callers_own",
    ),
    guarded(
        "app/history/receipts.py",
        "a live unique key keeps a second task out",
        "taken = _find_taken(connection, accepted)",
        "taken = None",
        "test_api_intake.py::test_a_second_task_with_a_live_unique_key_is_refused_and_names_the_first",
    ),
    guarded(
        "app/api/dead_letters.py",
        "a dead letter has one replay at a time",
        "return await replay(call, letter.job.id, is_dead_letter=True)",
        "return await replay(call, letter.job.id)",
        "test_api_dead_letters.py::test_of_two_who_replay_it_at_once_one_does_and_the_other_is_told",
    ),
)

_STREAM = (
    guarded(
        "app/api/hub.py",
        "what was told is not told again",
        "if last is not None and not is_newer(event, last):",
        "if False:",
        f"{_RESUME}::test_what_was_told_late_or_twice_is_told_once",
    ),
    guarded(
        "app/api/server.py",
        "the live news outlive an error in an answer of Redis",
        "asyncio.create_task(steadily(name, helper, mend=mend))",
        "asyncio.create_task(helper())",
        "test_api_stream.py::test_a_follower_hears_on_after_redis_has_answered_the_reader_with_an_error",
    ),
    guarded(
        "app/live/events.py",
        "a position of another life of Redis is a gap",
        "return before not in (0, now)",
        "return False",
        f"{_RESUME}::test_whose_position_is_gone_is_told_of_a_gap_and_gets_a_fresh_snapshot",
    ),
    guarded(
        "app/live/events.py",
        "a position that was trimmed is a gap",
        "return bool(await redis.xrange(keys.EVENTS, min=position.entry, max=position.entry))",
        "return True",
        f"{_RESUME}::test_whose_position_is_gone_is_told_of_a_gap_and_gets_a_fresh_snapshot",
    ),
    guarded(
        "app/api/hub.py",
        "a mark of lost events is a gap",
        "if published.event.type == LOST:",
        "if False:",
        f"{_RESUME}::test_who_follows_hears_of_a_gap_where_a_process_had_to_drop_events",
    ),
    guarded(
        "app/api/stories.py",
        "a mark of lost events is a gap for who comes back",
        "or any(found.event.type == LOST for found in batch)",
        "or False",
        f"{_RESUME}::test_who_follows_hears_of_a_gap_where_a_process_had_to_drop_events",
    ),
    guarded(
        "app/api/hub.py",
        "an end without an event is found by its row",
        "ids = [*self._followed_ids(), *await self._untold_ends()]",
        "ids = self._followed_ids()",
        f"{_RESUME}::test_a_list_hears_of_a_job_whose_every_event_was_lost",
    ),
    guarded(
        "app/live/workers.py",
        "a worker is lost once",
        "if await redis.zrem(keys.WORKERS, worker_id):",
        "if [await redis.zrem(keys.WORKERS, worker_id)]:",
        f"{_LIST}::test_a_worker_that_died_is_told_of_once_however_many_watch",
    ),
    guarded(
        "app/api/hub.py",
        "who lets too much wait is cut",
        "if len(self._waiting) > _MAX_WAITING:",
        "if False:",
        "tests/unit/test_api_hub.py::test_who_lets_too_much_wait_is_too_slow",
    ),
)

_OUTSIDE = (
    guarded(
        "app/outbound.py",
        "no socket is opened to the inside",
        "if not is_trusted and not self._is_outside(str(address[0])):",
        "if False:",
        "test_outbound.py::test_a_name_whose_second_answer_is_inside_reaches_nothing",
    ),
    guarded(
        "app/outbound.py",
        "redirects are not followed",
        "allow_redirects=False",
        "allow_redirects=True",
        "test_outbound.py::test_a_redirect_to_the_inside_is_an_answer_and_is_not_followed",
    ),
    guarded(
        "app/outbound.py",
        "a proxy of the environment is not used",
        "trust_env=False",
        "trust_env=True",
        "test_outbound.py::test_a_proxy_of_the_environment_is_not_used",
    ),
    guarded(
        "app/outbound.py",
        "an answer that never ends is cut",
        "if size >= MAX_ANSWER:",
        "if False:",
        "test_outbound.py::test_an_answer_that_never_ends_is_cut_and_one_that_trickles_is_given_up",
    ),
    guarded(
        "workers/families/webhook/delivery.py",
        "an old secret signs no longer than its day",
        "and now < target.old_secret_ends_at:",
        "and True:",
        "test_webhooks.py::test_two_secrets_sign_for_a_day_after_a_rotation",
    ),
    guarded(
        "app/credentials/webhooks.py",
        "a sealed secret opens for its own webhook alone",
        "self._cipher.encrypt(nonce, secret.encode(), webhook_id.encode())",
        "self._cipher.encrypt(nonce, secret.encode(), None)",
        "test_webhooks.py::test_the_receiver_verifies_an_event_that_shows_the_task",
    ),
    guarded(
        "app/api/webhooks.py",
        "a webhook is its owner's",
        "if found is None or not call.caller.may_see(found.owner):",
        "if found is None:",
        "test_webhooks.py::test_nobody_sees_or_touches_the_webhooks_of_others",
    ),
)

API_GUARDS = (*_TENANCY, *_CREDENTIALS, *_LIMITS, *_ONCE, *_STREAM, *_OUTSIDE)
