"""The objects that drive one backend inside a worker process. They know ids, not text."""
