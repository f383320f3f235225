"""MuseTalk's weight files: which there are, how they come here, how they are read."""
