"""One renderer for the media workers of a machine: a process per GPU paints the faces of all, and they meet in shared memory."""
