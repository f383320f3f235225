"""MuseTalk's four networks as plain torch modules. Their parameters carry the names that the official weight files use."""
