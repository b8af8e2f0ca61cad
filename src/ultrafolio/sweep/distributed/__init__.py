"""Cells computed by Celery workers anywhere: the job in Redis, its chunks, and where results wait to be fetched."""
