"""Faces and mouths: from a video to an avatar, from sound to lips. Threads yes; asyncio, aiohttp and aiortc no."""
