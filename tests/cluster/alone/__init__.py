"""Tests with a cluster of their own: a smaller one, with TLS on the data path."""
