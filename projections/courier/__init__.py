"""The courier: sends each project's events to where it asked for them.

``addresses`` says where nothing may be sent, ``post`` sends one request, ``signature`` signs it,
``book`` remembers how far each webhook has come, ``sender`` brings one webhook up to date, and
``run`` is the process that has them all.
"""
