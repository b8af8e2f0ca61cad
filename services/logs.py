"""Structured logs: one JSON object a line on standard error, with the service and its replica in each."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from services.settings import Settings


def logger(service: str, settings: Settings) -> Any:
    """A logger of this process: `.info("event", key=value)`. Levels below `settings.log` cost next to nothing."""
    level = logging.getLevelNamesMapping()[settings.log.upper()]
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
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
