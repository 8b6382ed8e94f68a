"""What a job is: contract, status machine, catalogue, schedules. Pure data and pure functions, no I/O.

A family is a module of this package that defines ``FAMILY``; the catalogue finds it by that name.
"""
