"""What the exit codes mean."""

OK = 0
NO = 1  # the answer is no: drift, failed jobs
ERROR = 2  # bad usage, bad configuration, any other error
SCHEMA = 3  # too old or too new
UNREACHABLE = 4  # no database
WATCHDOG = 5
BUG = 70  # of this program; EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # Ctrl-C
BROKEN_PIPE = 141  # whoever read standard output went away; as a shell tells SIGPIPE
