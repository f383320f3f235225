"""One student's answer: language model, voice, sentences, turn, session. No torch, cv2, aiortc or aiohttp.web."""
