"""A deterministic simulation of the whole cell, in the manner of FoundationDB's.

The engine's candidates, the projector, the agents and the clients' way of asking are the product's
own code. Around them are simulated: time and chance (``loop``, ``determinism``), the bus
(``network``), what the broker keeps (``broker``), hosts (``host``), people (``clients``), agents
that lie (``liars``) and misfortune (``trouble``). A seed decides everything (``plan``), so whatever
is found can be found again: ``script/simulate --seed N -v``. What must hold is in ``checker``;
``bugs`` are planted to see that it would be noticed.

Not simulated: JetStream's own code and its client (``tests/contracts`` and the crash campaign run
against the real ones), the HTTP edges, and real drivers.
"""
