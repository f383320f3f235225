"""Finds faces, mouths, hands and people in pictures."""
