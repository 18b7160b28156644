"""Structured logs: an event name and keys, as JSON for machines or coloured lines for a terminal.

`structlog.contextvars.bind_contextvars(run_id=...)` adds keys to every event of the task. The server binds
`request_id` and `method` for each call. Inside a trace, events carry its ids.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from codealign.common.traces import with_trace_ids

LogFormat = Literal["json", "console"]


def configure(service: str, level: str = "info", fmt: LogFormat = "json") -> None:
    """Configure logging for the process, including standard-library loggers (grpc, sqlalchemy)."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        with_trace_ids,
        lambda _logger, _name, event: {"service": service, **event},
    ]
    # Without the values of local variables, which are long and may be secret.
    frames = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    plain = structlog.dev.plain_traceback
    renderer: list[structlog.types.Processor] = (
        [frames, structlog.processors.JSONRenderer()]
        if fmt == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    )
    structlog.configure(
        # First, so that events below the level cost nothing.
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def get_logger(name: str | None = None) -> structlog.stdlib.BoundLogger:
    """Return a logger, used as `log.info("record_appended", record_id=...)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
