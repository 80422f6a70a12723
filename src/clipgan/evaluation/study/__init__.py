"""What is generated and what it is compared with: protocols, real images, captions, the driver."""
