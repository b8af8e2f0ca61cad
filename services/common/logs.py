"""Structured logs: one JSON object a line on standard error, with the service and its replica in each."""

from __future__ import annotations

import logging
import sys
import threading

import structlog
from structlog.typing import FilteringBoundLogger

from services.common.settings import Settings


def logger(service: str, settings: Settings) -> FilteringBoundLogger:
    """Returns a logger of this process: `.info("event", key=value)`. Levels below `settings.log` are dropped early."""
    level = logging.getLevelNamesMapping()[settings.log.upper()]
    made: FilteringBoundLogger = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        service=service,
        instance=settings.instance,
    )
    return made


class _StandardError:
    """Writes whole lines to the present sys.stderr."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        with self._lock:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = msg
