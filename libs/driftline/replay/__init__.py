"""Score logged requests again: bit for bit what was answered, or what another version would have said."""
