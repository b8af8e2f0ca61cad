"""The client side of the services: generated messages, errors, channel."""
