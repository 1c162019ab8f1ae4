"""What things are: statuses, rows, bodies, pipelines. No I/O, no clock, no asyncio."""
