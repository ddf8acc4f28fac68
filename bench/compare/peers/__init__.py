"""The model in each server, as that server's documentation writes a stream, with every default left alone."""
