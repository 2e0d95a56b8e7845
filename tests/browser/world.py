"""What the browser looks at: job types as a club's application has them."""

from tests.support import ROOT

_SHIPPED = (ROOT / "worker.toml").read_text(encoding="utf-8")
_STATS = _SHIPPED[_SHIPPED.index("[job.stats_update]") : _SHIPPED.index("# The cache webhook:")]
_STATS = _STATS.replace('# then = ["invalidate_cache"]', 'then = ["invalidate_cache"]')

TOML = (
    _STATS
    + """
[job.invalidate_cache]
http = "http://127.0.0.1:1/invalidate"
body = { tags = "{tags}" }
[job.send_receipt]
python = "tests.sample_jobs:done"
[job.resize_image]
python = "tests.sample_jobs:done"
limit = 4
[job.sync_orders]
python = "tests.sample_jobs:done"
[schedule.hourly_orders]
cron = "0 * * * *"
job = "sync_orders"
"""
)
SCENE = (ROOT / "tests" / "browser" / "scene.sql").read_text(encoding="utf-8")
