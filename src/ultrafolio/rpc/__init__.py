"""Talking to the services: generated messages, control blocks, errors and the client."""
