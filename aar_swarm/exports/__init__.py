"""A run's messages in formats that other people's programs read: the log format of race studies, and LOBSTER's."""
