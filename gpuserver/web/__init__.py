"""HTTP code that both processes share."""
