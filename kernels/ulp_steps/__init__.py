"""Steps between floats: taken, added, composed, scattered."""
