"""The status machine under random schedules: a model beside the real scripts and statements, and what breaks it."""
