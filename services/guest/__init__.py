"""Secure guests and their devices as a service."""
