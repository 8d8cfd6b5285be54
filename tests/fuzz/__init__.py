"""Every route of a running cloud, asked what the API's description allows and what it does not.

The requests are made from `/openapi.json` by schemathesis, from a seed. ``python -m tests.fuzz`` is
the long run, ``test_fuzz.py`` the short one.
"""
