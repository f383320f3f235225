"""The MuseTalk engine: hears with Whisper, draws with the UNet and the VAE."""
