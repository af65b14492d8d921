"""A federation on one machine, for show."""
