"""The demo: what a person can see of vastskyd in two minutes, checked as strictly as a test."""
