"""The Celery workers that run chunks of a sweep."""
