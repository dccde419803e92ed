"""One device, two kinds of work, one meter: SHA-256d hashing and AI inference on the same watts."""
