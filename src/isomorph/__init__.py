"""isomorph: identify, inspect, convert, prove and run AI model files of any common format."""

__version__ = "0.1.0"
