"""demo --config: a file that cannot be played is refused before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.app import app


@pytest.mark.parametrize("text", ['environment = "test"', "[job.stats_update]\npython = 'm:f'", "= 1", None])
def test_a_file_without_the_steps_is_one_clear_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "x.toml"
    if text is not None:
        file.write_text(text)
    result = CliRunner().invoke(app, ["demo", "--config", str(file)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"worker: {file} ")
    assert len(result.stderr.splitlines()) == 1
