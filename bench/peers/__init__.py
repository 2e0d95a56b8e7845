"""Other queues on Postgres, measured beside ours and raw SQL in one run: `python3 dev.py bench --peers [NAME…]`.

Inside a queue's own process, with nothing but the queue and the standard library: `process` (in Node `process.mjs`) and
one adapter for each queue. Outside, in ours: `catalogue` reads the settings, `install` brings the queues, `adapter`
starts their processes, `measures` measures, `table` tells, `run` is the command.
"""
