"""The command line: one file a group of verbs. Heavy modules are imported inside verbs, so that --help stays fast."""


def main() -> int:
    """Run the command line; answers with the exit code, unless typer ends the process first."""
    from worker.cli.app import app

    app(prog_name="worker")
    return 0
