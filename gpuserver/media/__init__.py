"""Process 2: playout clock, tracks, peers, signalling."""
