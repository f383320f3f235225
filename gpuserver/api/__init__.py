"""Routes of process 1, the management API."""
