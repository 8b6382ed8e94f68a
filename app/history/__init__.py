"""SQL for jobs: the rows that are the truth. Imported by ``app.lifecycle`` and, for reading, by the API."""
