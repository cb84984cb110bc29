"""``fuse`` and ``unfuse``: anyone's model with each Linear and the LeakyReLU or ReLU after it as one op."""
