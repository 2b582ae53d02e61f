"""No feature views: the model reads only what its requests bring."""
