from alembic.script import ScriptDirectory

from app.history.migrate import _config, head_revision


def test_the_head_is_the_last_of_one_line_of_migrations() -> None:
    scripts = ScriptDirectory.from_config(_config())

    assert scripts.get_heads() == [head_revision()]
