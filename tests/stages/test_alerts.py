"""Every alert, in promtool: days of samples, which take seconds."""

from pathlib import Path

from slipway.operations.monitoring.render import write
from tests.support.monitored import WHOLE, rendered
from tests.support.prometheus import PROMTOOL, checked, needs_prometheus


@needs_prometheus
def test_every_alert_fires_when_it_should_and_is_silent_when_it_should_not(tmp_path: Path) -> None:
    """promtool runs what was written: two budgets of one value, odd names and the default among it."""
    write(rendered(tmp_path, **WHOLE), tmp_path / "out")
    assert "SUCCESS" in checked(PROMTOOL, "test", "rules", tmp_path / "out" / "rules_test.yml")


@needs_prometheus
def test_rules_without_the_optional_parts_stand_alone(tmp_path: Path) -> None:
    write(rendered(tmp_path), tmp_path / "out")
    assert "SUCCESS" in checked(PROMTOOL, "check", "config", tmp_path / "out/prometheus.yml")
    assert "SUCCESS" in checked(PROMTOOL, "test", "rules", tmp_path / "out/rules_test.yml")
