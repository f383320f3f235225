"""Compares the runtime with arrays that MuseTalk's own code computed; temp/tests/golden/README.md describes the files."""
