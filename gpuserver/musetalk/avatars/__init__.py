"""Avatars on disk and in memory: their files, the shelf they stand on, what is known about them."""
