"""The page of measurements: made from the results alone, and complete."""

import json
from pathlib import Path

import pytest

from bench import performance
from bench.figure import Figure
from bench.names import NAMES
from bench.series import SERIES

RATIO = Figure.of("drain", "jobs/s", "≥ 0.6 of raw", [{"value": 7.0, "raw": 10.0, "default_settings": 3.0}] * 3)
PLAIN = Figure.of("step", "ms", "< 1 ms", [{"value": 1.5}])


class TestThePageAsItIs:
    def test_page_and_plots_are_those_of_the_results(self) -> None:
        results = performance.kept()
        assert performance.PAGE.read_text(encoding="utf-8") == performance.page(results)
        drawn = {each.stem: each.read_text(encoding="utf-8") for each in performance.PLOTS.glob("*.svg")}
        assert drawn == performance.plots(results)

    def test_every_measurement_and_every_plot_is_on_it(self) -> None:
        page = performance.PAGE.read_text(encoding="utf-8")
        assert [name for name in NAMES if f"\n| {name} | " not in page] == []
        assert [name for name in SERIES if f"(performance/{name}.svg)" not in page] == []

    def test_a_trial_says_so(self) -> None:
        results, page = performance.kept(), performance.PAGE.read_text(encoding="utf-8")
        trials = [run for run in results["runs"].values() if run["scale"] != 1]
        assert page.count("**A trial**") == len(trials)


class TestWriting:
    @pytest.fixture(autouse=True)
    def elsewhere(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name, place in (("RESULTS", "p.json"), ("PAGE", "p.md"), ("PLOTS", "plots")):
            monkeypatch.setattr(performance, name, tmp_path / place)

    def test_a_run_replaces_its_own_figures_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        performance.write([RATIO, PLAIN], {"pick_up": {"worker": [[1.0, 100.0]]}}, 1.0, "On a quiet machine.")
        results = performance.kept()
        [run] = results["runs"]
        results["runs"] = {"earlier": results["runs"][run]}
        for each in (*results["figures"].values(), *results["series"].values()):
            each["run"] = "earlier"
        performance.RESULTS.write_text(json.dumps(results))
        faster = Figure.of("step", "ms", "< 1 ms", [{"value": 0.5}])
        performance.write([faster], {}, 0.1, "")
        page = performance.PAGE.read_text()
        assert page == performance.page(performance.kept())
        assert "| drain | 7 jobs/s | 10 | 0.7 | 0.7 to 0.7 | 3 | ≥ 0.6 of raw | holds | earlier |" in page
        assert "| step | 0.5 ms | – | – | 0.5 to 0.5 | 1 | < 1 ms | a trial | 20" in page
        assert "- **drain**: default_settings 3" in page
        assert "- **earlier**: commit" in page
        assert "On a quiet machine." in page
        assert page.count("**A trial** at 0.1") == 1
        assert [each.stem for each in performance.PLOTS.iterdir()] == ["pick_up"]

    def test_a_run_that_nothing_is_left_of_goes(self) -> None:
        performance.write([PLAIN], {}, 1.0, "")
        performance.write([PLAIN], {}, 1.0, "")
        assert len(performance.kept()["runs"]) == 1

    def test_figures_of_so_many_of_something_are_a_table(self) -> None:
        run = {"value": 1.0, "rounds": 5.0, "listed_s_on_1": 2.0, "listed_s_on_10": 1.0, "bound_s_on_10": 0.5}
        performance.write([Figure.of("graph", "s", "< 2 s", [run])], {}, 1.0, "")
        page = performance.PAGE.read_text()
        assert "- **graph**: rounds 5\n\n| graph on | 1 | 10 |\n|---|---|---|\n" in page
        assert "| bound_s | – | 0.5 |\n" in page
        assert "| listed_s | 2 | 1 |\n" in page

    def test_what_is_missing_is_named(self) -> None:
        performance.write([PLAIN], {}, 1.0, "")
        page = performance.PAGE.read_text()
        assert "MISSED" in page
        assert "Not measured yet: drain, drain_5ms, enqueue" in page
