"""The predictor: scores requests from the topic and over HTTP, and logs each under its UUID."""
