"""The Avatar Service: /api/chat, /api/avatar and the WebRTC proxy, beside the management API or alone. It keeps no state."""
