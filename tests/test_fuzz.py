"""Configurations and payloads that nobody would write, in short; for long in the nightly tier (experiments 82-…)."""

from functools import partial

from tests.fuzz import config_is_read_or_refused, documents, examples, files, payload_is_read_or_refused


def test_a_configuration_is_read_or_refused_in_words(tmp_path):
    ran, _ = examples(files(), partial(config_is_read_or_refused, folder=tmp_path), 150, 1)
    assert ran >= 100


def test_a_payload_is_read_or_its_job_is_invalid():
    ran, _ = examples(documents(), payload_is_read_or_refused, 400, 1)
    assert ran >= 300
