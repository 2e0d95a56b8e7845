"""worker.toml + environment → frozen Config; all faults at once, each with its line."""

from worker.config.job_type import JobType
from worker.config.load import load, load_listener
from worker.config.models import Config
from worker.config.render import config_schema, render, secret_values

__all__ = ["Config", "JobType", "config_schema", "load", "load_listener", "render", "secret_values"]
