"""Makes avatars of videos and stills, in child processes with limits."""
