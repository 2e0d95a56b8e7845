"""python -m bench.spike [question] [--json]: reads DATABASE_URL, creates and drops databases named spike_*;
15 brings its own server.

One run at a time on a server: runs share the names of their databases.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json

import uvloop

QUESTIONS = {
    "1": "tables",
    "1b": "changes",
    "2": "claims",
    "2b": "answers",
    "3": "steps",
    "4": "wake",
    "15": "costs",
    "races": "races",
}


async def main(question: str, as_json: bool) -> None:
    module = importlib.import_module(f"bench.spike.{QUESTIONS[question]}")
    result = await module.measure()
    print(json.dumps(result, indent=1, default=str) if as_json else module.report(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.spike", description=__doc__)
    parser.add_argument("question", nargs="?", choices=sorted(QUESTIONS), default="1")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    uvloop.install()
    asyncio.run(main(options.question, options.json))
