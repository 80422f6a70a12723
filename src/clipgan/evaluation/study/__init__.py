"""What is generated and against what: protocols, real images, captions, and the driver."""
