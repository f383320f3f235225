"""The CPU engine: the source picture's own lips are moved."""
