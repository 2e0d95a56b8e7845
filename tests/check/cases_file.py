"""What is broken in worker.toml and in what it names."""

import asyncio
import zoneinfo

from tests.check.cases import Act, Case
from tests.check.ward import JOBS, Ward
from tests.support import free_port


def file(jobs: str = JOBS, **sections: str) -> Act:
    """Another worker.toml."""

    async def act(ward: Ward) -> None:
        ward.configure(jobs, **sections)

    return act


async def nobody_listens(ward: Ward) -> None:
    ward.port = free_port()
    ward.configure(f'{JOBS}[job.hook]\nhttp = "http://127.0.0.1:{ward.port}/"\n')
    await ward.declare()


async def somebody_listens(ward: Ward) -> None:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", ward.port)
    ward.leaving.callback(listening.close)


async def a_written_secret(ward: Ward) -> None:
    await nobody_listens(ward)
    await somebody_listens(ward)
    path = ward.folder / "worker.toml"
    hook = f'http = "http://127.0.0.1:{ward.port}/"\n'
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace(hook, f'{hook}headers = {{ Authorization = "Bearer geheim-12345" }}\n'), encoding="utf-8"
    )
    path.chmod(0o644)
    await ward.declare()


async def a_readable_file(ward: Ward) -> None:
    await nobody_listens(ward)
    await somebody_listens(ward)
    secret = ward.folder / "secret"
    secret.write_text("geheim-12345\n", encoding="utf-8")
    secret.chmod(0o644)
    ward.patch.setenv("HOOK_KEY_FILE", str(secret))
    hook = f'http = "http://127.0.0.1:{ward.port}/"\nheaders = {{ Authorization = "Bearer $HOOK_KEY" }}\n'
    ward.configure(f"{JOBS}[job.hook]\n{hook}")
    await ward.declare()


async def a_file_of_its_own(ward: Ward) -> None:
    (ward.folder / "secret").chmod(0o600)


async def its_own_file(ward: Ward) -> None:
    (ward.folder / "worker.toml").chmod(0o640)


async def no_time_zones(ward: Ward) -> None:
    ward.configure(JOBS.replace("[schedule.nightly]", '[schedule.nightly]\nzone = "Atlantic/Bermuda"'))
    ward.patch.setattr("zoneinfo.available_timezones", set)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    ward.leaving.callback(zoneinfo.reset_tzpath)


async def time_zones(ward: Ward) -> None:
    ward.patch.undo()
    zoneinfo.reset_tzpath()
    await ward.declare()


FILE = (
    Case("coroutines.unusable", file(JOBS.replace("handlers:fine", "handlers:gone")), file()),
    Case("coroutines.unusable", file(JOBS.replace("tests.cli.handlers", "tests.cli.nowhere")), file(), name="module"),
    Case("configuration.invalid", file(JOBS + '[http]\nlisten = "0.0.0.0:9464"\n'), file(), name="open_to_all"),
    Case("configuration.invalid", file(JOBS.replace("[schedule.nightly]", '[schedule.nightly]\nzone = "Mars/Base"')),
         file(), name="zone"),
    Case("configuration.invalid", file(JOBS + "paralel = 1\n"), file(), name="unknown_key"),
    Case("configuration.unwise", file(worker="concurrency = 5\nprefetch = 500"), file()),
    Case("configuration.readable", a_written_secret, its_own_file),
    Case("configuration.readable", a_readable_file, a_file_of_its_own, name="of_a_secret"),
    Case("configuration.zones", no_time_zones, time_zones, also=("configuration.invalid",)),
    Case("endpoints.unreachable", nobody_listens, somebody_listens),
)  # fmt: skip
