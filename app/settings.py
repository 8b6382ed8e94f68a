"""All settings, from the environment or ``.env``. Read once by a composition root and passed on.

``.env.example`` lists the same names with the same defaults; a contract test compares the two.
"""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import Misconfigured


class Settings(BaseSettings):
    """What an operator can set. Every field is an environment variable of the same name, upper case."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis 6.2+ or Valkey; rediss:// for TLS.")
    database_url: str = Field(
        "",
        description="SQLAlchemy async URL: sqlite+aiosqlite:///path or postgresql+asyncpg://…; "
        "empty is jobs.db inside DATA_DIR.",
    )
    db_echo: bool = Field(False, description="Log every SQL statement. For debugging only: shows parameters.")
    db_pool_size: int = Field(5, ge=1, le=200, description="Database connections kept open by one process.")
    db_max_overflow: int = Field(10, ge=0, le=200, description="Connections beyond the pool under load.")
    db_auto_upgrade: bool = Field(True, description="Bring the schema up to date when a process starts.")
    data_dir: Path = Field(Path(".data"), description="Directory for the SQLite file and generated keys.")
    archive_root: Path | None = Field(
        None, description="Directory that archives are written below; empty is archive inside DATA_DIR."
    )
    temp_dir: Path | None = Field(
        None, description="Directory whose old files retention deletes; empty is tmp inside DATA_DIR."
    )
    s3_endpoint_url: str = Field(
        "", description="Address of an S3-compatible store for archives; empty is AWS, or what its environment says."
    )
    s3_region: str = Field("", description="Region of the archives' buckets; empty is what AWS's environment says.")
    s3_access_key_id: str = Field("", description="Key id for archives in S3; empty is what AWS's environment says.")
    s3_secret_access_key: SecretStr | None = Field(None, description="The other half of S3_ACCESS_KEY_ID.")
    model_dir: Path | None = Field(None, description="Directory for trained models; empty is models inside DATA_DIR.")
    base_model_dir: Path | None = Field(
        None, description="Directory of transformers models that LoRA adapts; empty is base inside MODEL_DIR."
    )

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the API listens on; 0 takes a free one.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated origins that browsers may call from; empty allows none."
    )
    admin_api_key: SecretStr | None = Field(
        None, description="Bearer token of the administrator; unset, the first start makes an admin key and shows it."
    )
    api_keys: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict, description="Comma-separated user=key pairs: bearer tokens of ordinary users."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Secret of at least 32 characters, the same for every API process, that keys are hashed and "
        "tokens signed with; unset makes one in DATA_DIR/server.key.",
    )
    metrics_open: bool = Field(True, description="Whether /metrics needs no key.")
    streams_per_caller: int = Field(
        100,
        ge=0,
        le=100_000,
        description="Event streams one caller follows at a time in one API process; 0 is no limit.",
    )
    access_token_ttl_s: int = Field(900, ge=60, le=86_400, description="Seconds the token of a login holds.")
    session_ttl_s: int = Field(43_200, ge=300, le=2_592_000, description="Seconds the session of a browser holds.")
    cookie_secure: bool = Field(
        True, description="Whether browsers send the session cookie over TLS only, except to localhost."
    )
    jwt_issuer: str = Field("", description="Outside issuer (iss) whose tokens are taken; empty is none.")
    jwt_audience: str = Field("", description="Audience (aud) that tokens of JWT_ISSUER must name.")
    jwt_jwks_url: str = Field("", description="URL of the keys of JWT_ISSUER, of which RS256 and ES256 are taken.")

    rate_limit_per_minute: int = Field(
        600,
        ge=0,
        le=1_000_000,
        description="Requests a minute that one caller may send, administrators excepted; 0 is no limit.",
    )
    rate_limit_burst: int = Field(
        100, ge=1, le=100_000, description="Requests that one caller may send at once, before RATE_LIMIT_PER_MINUTE."
    )
    max_waiting_per_user: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description="Tasks of one user that may wait at a time, administrators excepted; 0 is no limit.",
    )
    request_timeout_s: float = Field(
        60, ge=1, le=3600, description="Seconds until a request whose answer has not begun is given up."
    )
    idle_timeout_s: float = Field(
        75,
        ge=0.1,
        le=3600,
        description="Seconds until a connection without a complete request is cut, silent or slow; longer than a "
        "proxy in front keeps its own.",
    )
    max_connections: int = Field(
        10_000, ge=1, le=1_000_000, description="Connections that one API process serves; one more is reset."
    )
    max_bodies_mb: int = Field(
        128,
        ge=32,
        le=65_536,
        description="Megabytes of bodies that one API process takes in at a time; more gets a 503.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto is coloured lines on a terminal and JSON elsewhere."
    )

    worker_slots: int = Field(100, ge=1, le=10_000, description="Jobs one worker process runs at a time.")
    worker_cron: bool = Field(True, description="Whether workers submit what the schedule says.")
    worker_grace_s: float = Field(30, ge=0, le=3600, description="Seconds running jobs get after SIGTERM.")
    worker_child_memory_mb: int = Field(
        2048, ge=64, le=1_048_576, description="Megabytes of memory that the process of one CPU-bound job may use."
    )
    worker_children: int = Field(
        0, ge=0, le=1024, description="Child processes one worker runs at a time for CPU-bound jobs; 0 is one per core."
    )
    worker_hang_s: float = Field(
        60, ge=1, le=3600, description="Seconds after which a worker whose event loop hangs is ended."
    )
    lease_s: float = Field(9, ge=1, le=300, description="Seconds until a silent worker's jobs are taken over.")
    result_ttl_s: int = Field(3600, ge=1, description="Seconds a result stays in Redis for quick readers.")

    edm_matcher: Literal["auto", "lexical", "embeddings"] = Field(
        "auto", description="How claims find their fact checks; auto takes embeddings where that extra is installed."
    )
    ffe_optimizer_s: float = Field(
        5,
        ge=0,
        le=600,
        description="Seconds to look for a better schedule of a plan, with the extra optimizer; 0 is off.",
    )
    planner_url: str = Field(
        "",
        description="Base URL of an OpenAI-compatible service that proposes plans, such as http://127.0.0.1:8000/v1; "
        "empty plans by templates.",
    )
    planner_api_key: SecretStr | None = Field(None, description="Bearer token for PLANNER_URL; unset sends none.")
    planner_model: str = Field(
        "",
        validate_default=True,
        description="Model to ask at PLANNER_URL, as that service calls it; needed where that is set.",
    )
    planner_timeout_s: float = Field(
        60,
        ge=0.1,
        le=300,
        description="Seconds until one answer of PLANNER_URL is given up; it is asked up to 3 times.",
    )

    outbound_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated networks and hosts inside that webhooks may call all the same, on any port."
    )
    outbound_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65_535)], ...], NoDecode] = Field(
        (), description="Comma-separated ports that webhooks may call; empty is 443, and 80 with OUTBOUND_HTTP."
    )
    outbound_http: bool = Field(False, description="Whether webhooks may be called without TLS.")

    @field_validator("cors_origins", "outbound_allow", "outbound_ports", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not user.strip() or not key.strip() for user, _, key in pairs):
            raise ValueError("API_KEYS is a comma-separated list of user=key")
        return {user.strip(): key.strip() for user, _, key in pairs}

    @field_validator("planner_url")
    @classmethod
    def _speaks_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None):
            raise ValueError("PLANNER_URL is http:// or https:// and a host, and carries no user or password")
        return value.rstrip("/")

    @field_validator("planner_model")
    @classmethod
    def _names_a_model(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("planner_url") and not value.strip():
            raise ValueError("PLANNER_URL is set, so PLANNER_MODEL must name the model to ask there; or set neither")
        return value.strip()

    @field_validator(
        "admin_api_key",
        "secret_key",
        "planner_api_key",
        "s3_secret_access_key",
        "archive_root",
        "temp_dir",
        "model_dir",
        "base_model_dir",
        mode="before",
    )
    @classmethod
    def _unset_when_empty(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def sql_url(self) -> str:
        """The database URL in force: ``DATABASE_URL``, else a SQLite file inside ``DATA_DIR``."""
        return self.database_url or f"sqlite+aiosqlite:///{(self.data_dir / 'jobs.db').absolute()}"

    @property
    def archives(self) -> Path:
        """The directory in force below which archives are written."""
        return self.archive_root or self.data_dir / "archive"

    @property
    def temporary(self) -> Path:
        """The directory in force whose old files retention deletes."""
        return self.temp_dir or self.data_dir / "tmp"

    @property
    def models_path(self) -> Path:
        """Where trained models are kept: ``MODEL_DIR``, else a directory inside ``DATA_DIR``."""
        return self.model_dir or self.data_dir / "models"

    @property
    def base_models_path(self) -> Path:
        """Where the models that LoRA adapts lie, a directory each: ``BASE_MODEL_DIR``, else inside the former."""
        return self.base_model_dir or self.models_path / "base"


def read_settings(**given: Any) -> Settings:
    """Return the settings in force; what is ``given`` and not None comes before the environment.

    Raise Misconfigured with what is wrong with each value that will not do. The values themselves are left
    out: they may be secret.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()]
        raise Misconfigured(f"{'; '.join(wrong)}. See .env.example for what each setting takes.") from error
