"""What tests share: comparisons that explain themselves, and the literal GAN."""
