"""The domain's data that jobs work on: typed records, their tables, their bulk ingest. SQL is written here.

A record kind is a module of this package that defines a :class:`~app.records.record.RecordType`;
table, validation, route, command line and documentation follow from it. The API, the command line and
the workers may import it.
"""
