"""What the maintenance jobs take, and what they refuse before anything runs."""

import sys

import pytest
from pydantic import ValidationError

from app.jobs.maintenance import (
    DEFAULT_POLICY,
    ArchiveAuditLogsParams,
    CleanupCacheParams,
    EnforceRetentionPolicyParams,
    MaintainDatabaseParams,
)


@pytest.mark.parametrize("location", ["audit", "audit/2026", "a.b/c-d"])
def test_a_directory_below_the_root_is_an_archive_location(location: str) -> None:
    assert ArchiveAuditLogsParams(archive_location=location).archive_location == location


@pytest.mark.parametrize("location", ["file:///audit", "gs://x", "https://x/y", "S3://bucket/audit"])
def test_a_location_with_a_scheme_is_refused_and_told_what_would_do(location: str) -> None:
    with pytest.raises(ValidationError, match="local directory below ARCHIVE_ROOT"):
        ArchiveAuditLogsParams(archive_location=location)


@pytest.mark.parametrize("location", ["s3://bucket", "s3://my.bucket-1/audit", "s3://bucket/a/b_c/d.e"])
def test_a_bucket_is_an_archive_location_where_the_extra_is_installed(location: str) -> None:
    assert ArchiveAuditLogsParams(archive_location=location).archive_location == location


def test_a_bucket_is_refused_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore", None)

    with pytest.raises(ValidationError, match=r"need the extra 's3'.*asyncjobs-service\[s3\]"):
        ArchiveAuditLogsParams(archive_location="s3://bucket/audit")


@pytest.mark.parametrize(
    "location",
    ["s3://", "s3://B", "s3://ab", "s3:///x", "s3://bucket/", "s3://bucket//x", "s3://bucket/../x", "s3://b c/x"],
)
def test_what_is_no_bucket_and_prefix_is_refused(location: str) -> None:
    with pytest.raises(ValidationError, match="s3://bucket/prefix"):
        ArchiveAuditLogsParams(archive_location=location)


@pytest.mark.parametrize("location", ["/audit", "..", "a/../../b", "a/..", "a\\b", ""])
def test_a_location_that_may_leave_the_root_is_refused(location: str) -> None:
    with pytest.raises(ValidationError):
        ArchiveAuditLogsParams(archive_location=location)


@pytest.mark.parametrize("days", [0, 3651, -1, 1.5, True, "7"])
def test_days_outside_ten_years_are_refused(days: object) -> None:
    for params, given in ((ArchiveAuditLogsParams, {"days_to_keep": days}),):
        with pytest.raises(ValidationError):
            params.model_validate(given)
    with pytest.raises(ValidationError):
        EnforceRetentionPolicyParams.model_validate({"policy": {"completed_tasks": days}})


def test_an_unknown_line_of_a_policy_is_refused() -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        EnforceRetentionPolicyParams.model_validate({"policy": {"users": 7}})


def test_the_default_policy_is_that_of_the_contract() -> None:
    assert DEFAULT_POLICY.model_dump() == {
        "ari_snapshots": 365,
        "audit_logs": 90,
        "failed_tasks": 30,
        "completed_tasks": 14,
        "cancelled_tasks": 14,
        "temp_files": 7,
    }


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (MaintainDatabaseParams, {"maintenance_level": "brutal"}),
        (CleanupCacheParams, {"max_age_hours": 0}),
        (CleanupCacheParams, {"cleanup_expired_only": "yes"}),
    ],
)
def test_what_is_unclear_is_refused(model: type[MaintainDatabaseParams], given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(given)
