"""The order of the scripts: deferred ones run in it, and htmx connects to the stream as soon as it runs."""

import re

from tests.support import ROOT


def test_who_listens_is_there_before_the_stream_is_connected() -> None:
    page = (ROOT / "worker/web/templates/base.html").read_text(encoding="utf-8")
    assert re.findall(r"asset\('([^']+\.js)'\)", page) == ["admin.js", "htmx.min.js", "hx-sse.min.js"]
