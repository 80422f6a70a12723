"""clipgan: small, fast text-to-image GANs without captions."""
