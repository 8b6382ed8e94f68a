"""Who may do what: scopes, API keys, passwords, tokens, and the record of what administrators did.

What is stored of them is in ``app.history``. The API and the command line import this; workers need not.
"""
