"""One address for several media workers: finds the worker of each session, starts workers and restarts what dies."""
