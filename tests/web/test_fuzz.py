"""The API against its own description, in short; for long in the nightly tier (experiment 82-http)."""

import pytest

from tests.web.fuzzing import fuzz, installed, patient
from tests.web.site import standing


@pytest.mark.timeout(300)  # it starts in a second and is over in ten, unless the machine is very busy
async def test_no_fault_and_no_answer_that_is_not_described(tmp_path, dsn, connection):
    async with standing(await installed(tmp_path, dsn, connection)) as side:
        patient(side)
        code, cases, said = await fuzz(side.port, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "5")
    assert code == 0, said[-8000:]
    assert cases > 50
