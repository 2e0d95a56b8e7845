"""The doctor: looks at everything the daemon will need, one file a subject, and names a cure for what is wrong."""

from worker.check.configuration import examine_config
from worker.check.finding import Finding
from worker.check.patient import Limits
from worker.check.visit import examine

__all__ = ["Finding", "Limits", "examine", "examine_config"]
