"""One layer a file."""
