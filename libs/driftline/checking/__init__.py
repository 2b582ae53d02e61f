"""A project looked at before it is deployed, without servers: its mistakes, and what a change of it breaks."""
