"""The command line: one file a group of verbs. Heavy modules are imported inside verbs, so that --help stays fast."""


def main() -> int:
    """Run the command line; answers with the exit code, unless typer ends the process first."""
    from worker.cli.pid_one import step_aside

    step_aside()  # before the rest is imported: until then, a signal to PID 1 is lost
    from worker.cli.app import app

    app(prog_name="worker")
    return 0
