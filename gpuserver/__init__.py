"""A server for talking digital humans. Start reading at ARCHITECTURE.md, then domain.py, then pipeline/turn.py."""

__version__ = "0.1.0"
