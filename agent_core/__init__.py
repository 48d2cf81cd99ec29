"""The domain and what every part shares. Imports no other package of the project."""
