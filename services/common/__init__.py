"""What every service has: its settings, its server, and what surrounds each of its calls."""
