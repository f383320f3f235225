"""Tries everything that the server depends on and says in plain words what works, what does not, and what to do."""
