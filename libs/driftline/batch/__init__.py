"""Files: their rows as events or as requests, and the predictions of a whole file, logged once."""
